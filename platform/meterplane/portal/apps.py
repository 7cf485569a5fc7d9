"""The customer's portal."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Templates, static files and views; no tables of its own."""

    name = "meterplane.portal"
    label = "portal"
