"""Django app `payments`. Tells the ledger's audit what its refunds, disputes and recorded payments
must have there.
"""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "billing.payments"
    label = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from billing.ledger import sources
        from billing.payments.dispute_entries import DISPUTES
        from billing.payments.recorded import RECORDED_PAYMENTS
        from billing.payments.refund_entries import REFUNDS

        sources.register(REFUNDS)
        sources.register(DISPUTES)
        sources.register(RECORDED_PAYMENTS)
