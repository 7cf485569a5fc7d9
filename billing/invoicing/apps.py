"""Django app `invoicing`. Tells the ledger's audit what invoices must have there."""

from django.apps import AppConfig


class InvoicingConfig(AppConfig):
    name = "billing.invoicing"
    label = "invoicing"
    verbose_name = "Invoicing"

    def ready(self) -> None:
        from billing.invoicing.credit_entries import CREDIT_NOTES
        from billing.invoicing.record import INVOICES
        from billing.ledger import sources

        sources.register(INVOICES)
        sources.register(CREDIT_NOTES)
