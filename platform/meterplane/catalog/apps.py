"""Django app `catalog`."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "meterplane.catalog"
    label = "catalog"
    verbose_name = "Catalog"
