"""Django app `pricing`."""

from django.apps import AppConfig


class PricingConfig(AppConfig):
    name = "billing.pricing"
    label = "pricing"
    verbose_name = "Pricing"

    def ready(self) -> None:
        """Tell metering, which lies below, where prices are read."""
        from billing.pricing.queries import unit_prices
        from meterplane.metering import price_port

        price_port.register(unit_prices)
