"""Django app `pricing`."""

from django.apps import AppConfig


class PricingConfig(AppConfig):
    name = "billing.pricing"
    label = "pricing"
    verbose_name = "Pricing"
