"""Django app `payments`. Tells the ledger's audit what refunds must have there."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "billing.payments"
    label = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from billing.ledger import sources
        from billing.payments.refund_entries import REFUNDS

        sources.register(REFUNDS)
