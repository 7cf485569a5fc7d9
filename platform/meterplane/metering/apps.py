"""Django app `metering`."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "meterplane.metering"
    label = "metering"
    verbose_name = "Metering"
