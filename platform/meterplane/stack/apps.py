"""The stack as a Django app: it brings management commands and nothing else."""

from django.apps import AppConfig


class StackConfig(AppConfig):
    """No models, no signals."""

    name = "meterplane.stack"
    label = "stack"
