"""Django app `payments`. Tells the ledger's audit what recorded payments must have there."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "billing.payments"
    label = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from billing.ledger import sources
        from billing.payments.recorded import RECORDED_PAYMENTS

        sources.register(RECORDED_PAYMENTS)
