"""Money paid back to a customer, whoever gave it back: a credit note, an operator, or somebody at
the provider's own pages.

`owed_minor` of it had been said to be paid back (`refunds`), `balance_minor` had been paid too much
(`customer_balance`); nothing stands for the rest (`goodwill`). What it is of, and what it is taken
from, never changes (a trigger holds that); its state only moves forward.
"""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel


class Refund(TenantModel):
    """A payment, or a part of one, that goes back."""

    class Origin(models.TextChoices):
        NOTE = "note", "A credit note"
        OPERATOR = "operator", "An operator"
        PROVIDER = "provider", "The provider's pages"

    class State(models.TextChoices):
        ASKED = "asked", "Asked for"  # not known to be there: nothing in the ledger yet
        PENDING = "pending", "Pending"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"  # the bank sent it back: the ledger is as before
        REFUSED = "refused", "Refused"  # never was there

    invoice = models.ForeignKey(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="refunds"
    )
    note = models.ForeignKey(
        "invoicing.CreditNote", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    provider = models.CharField(max_length=16)
    provider_refund_id = models.CharField(max_length=64, null=True, blank=True)
    payment_intent_id = models.CharField(max_length=64, blank=True, default="")
    origin = models.CharField(max_length=8, choices=Origin)
    state = models.CharField(max_length=9, choices=State)
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()
    owed_minor = models.BigIntegerField()
    balance_minor = models.BigIntegerField()
    reason = models.CharField(max_length=200, blank=True, default="")
    failure = models.CharField(max_length=300, blank=True, default="")
    idempotency_key = models.CharField(max_length=100, null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now)
    made_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "refund"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "provider_refund_id"], name="refund_there_once"
            ),
            models.UniqueConstraint(fields=["tenant", "idempotency_key"], name="refund_asked_once"),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0, owed_minor__gte=0, balance_minor__gte=0)
                & Q(amount_minor__gte=F("owed_minor") + F("balance_minor")),
                name="refund_parts_within_it",
            ),
            models.CheckConstraint(
                condition=Q(origin="note", note__isnull=False, idempotency_key__isnull=True)
                | Q(origin="operator", note__isnull=True, idempotency_key__isnull=False)
                | Q(origin="provider", note__isnull=True, idempotency_key__isnull=True),
                name="refund_origin_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["asked", "refused"], made_at__isnull=True)
                | Q(
                    state__in=["pending", "succeeded", "failed"],
                    made_at__isnull=False,
                    provider_refund_id__isnull=False,
                ),
                name="refund_state_known",
            ),
            models.CheckConstraint(
                condition=Q(state="failed", failed_at__isnull=False)
                | (~Q(state="failed") & Q(failed_at__isnull=True)),
                name="refund_failed_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_minor} {self.currency} {self.state}"

    @property
    def goodwill_minor(self) -> int:
        """What nothing stands for."""
        return int(self.amount_minor - self.owed_minor - self.balance_minor)
