"""Django app `credits`. Tells the ledger's audit what credit must have there."""

from django.apps import AppConfig


class CreditsConfig(AppConfig):
    name = "billing.credits"
    label = "credits"
    verbose_name = "Credits"

    def ready(self) -> None:
        from billing.credits.postings import GRANTS, MOVEMENTS
        from billing.ledger import sources

        sources.register(GRANTS)
        sources.register(MOVEMENTS)
