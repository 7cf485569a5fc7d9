"""Django app `batches`."""

from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "meterplane.batches"
    label = "batches"
    verbose_name = "Batches"
