"""Payments that a bank takes back: each dispute, and everything it moved.

A dispute is of the payment of an invoice or of a top-up. One whose payment we do not know belongs
to nobody yet, and says why: it is parked until its payment is known.

Invariants held by PostgreSQL, beside the checks below:
- What a dispute is never changes, and whose it is only once, from nobody's (a trigger).
- Its status only moves forward, as `RANK` has it (the same trigger). A dispute that was lost may
  be appealed, and won.
- What it moved is written once, in its own organisation: no role may change or delete a movement.
"""

from collections.abc import Mapping
from typing import Any

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import TenantManager, TenantModel


class Dispute(models.Model):
    """A payment that a bank takes back, or asks about (`warning_*`)."""

    class Status(models.TextChoices):
        WARNING_NEEDS_RESPONSE = "warning_needs_response", "Inquiry, needs an answer"
        WARNING_UNDER_REVIEW = "warning_under_review", "Inquiry, answered"
        WARNING_CLOSED = "warning_closed", "Inquiry closed"
        PREVENTED = "prevented", "Prevented"
        NEEDS_RESPONSE = "needs_response", "Needs an answer"
        UNDER_REVIEW = "under_review", "Under review"
        LOST = "lost", "Lost"
        APPEAL_NEEDS_RESPONSE = "appeal_needs_response", "Appeal needs an answer"
        APPEAL_UNDER_REVIEW = "appeal_under_review", "Appeal under review"
        WON = "won", "Won"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(
        "tenants.Organisation", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    provider = models.CharField(max_length=16)
    provider_dispute_id = models.CharField(max_length=64)
    charge_id = models.CharField(max_length=64)
    payment_intent_id = models.CharField(max_length=64, blank=True, default="")
    invoice = models.ForeignKey(
        "invoicing.Invoice",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="disputes",
    )
    top_up = models.ForeignKey(
        "payments.TopUp", null=True, blank=True, on_delete=models.PROTECT, related_name="disputes"
    )
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()
    reason = models.CharField(max_length=64)
    status = models.CharField(max_length=24, choices=Status)
    evidence_due_at = models.DateTimeField(null=True, blank=True)
    has_evidence = models.BooleanField(default=False)
    note = models.CharField(max_length=300, blank=True, default="")
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    checked_at = models.DateTimeField(default=clock.now)
    created_at = models.DateTimeField(default=clock.now)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        db_table = "dispute"
        ordering = ["-opened_at", "-id"]
        indexes = [
            models.Index(
                fields=["evidence_due_at"],
                condition=Q(closed_at__isnull=True),
                name="dispute_open_by_deadline",
            ),
            models.Index(fields=["tenant", "-opened_at"], name="dispute_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "provider_dispute_id"], name="dispute_there_once"
            ),
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="dispute_is_something"),
            models.CheckConstraint(
                condition=Q(tenant=None, invoice=None, top_up=None, note__gt="")
                | Q(tenant__isnull=False, invoice__isnull=False, top_up=None, note="")
                | Q(tenant__isnull=False, invoice=None, top_up__isnull=False, note=""),
                name="dispute_of_one_payment",
            ),
            models.CheckConstraint(
                condition=Q(
                    status__in=["lost", "prevented", "warning_closed", "won"],
                    closed_at__isnull=False,
                )
                | Q(
                    status__in=[
                        "appeal_needs_response", "appeal_under_review", "needs_response",
                        "under_review", "warning_needs_response", "warning_under_review",
                    ],
                    closed_at__isnull=True,
                ),
                name="dispute_closed_when_over",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.provider_dispute_id

    @property
    def is_parked(self) -> bool:
        """Whether its payment is not known."""
        return self.tenant_id is None


_S = Dispute.Status
OVER = frozenset({_S.LOST, _S.PREVENTED, _S.WARNING_CLOSED, _S.WON})
UNANSWERED = frozenset({_S.WARNING_NEEDS_RESPONSE, _S.NEEDS_RESPONSE, _S.APPEAL_NEEDS_RESPONSE})
# A status gives way to one of its own rank or a higher one. `dispute_rank` in PostgreSQL is this.
RANK: Mapping[str, int] = {
    _S.WARNING_NEEDS_RESPONSE: 0, _S.WARNING_UNDER_REVIEW: 1,
    _S.WARNING_CLOSED: 2, _S.PREVENTED: 2,
    _S.NEEDS_RESPONSE: 3, _S.UNDER_REVIEW: 4,
    _S.LOST: 5, _S.APPEAL_NEEDS_RESPONSE: 5, _S.APPEAL_UNDER_REVIEW: 5,
    _S.WON: 6,
}  # fmt: skip


class DisputeMovement(TenantModel):
    """Something that a dispute moved; `amount_minor` is positive, `kind` says which way.

    What the provider moved names its transaction there. Of what was lost, `owed_minor` had been
    said to be paid back anyway and `balance_minor` had been paid too much; the rest is our loss.
    """

    class Kind(models.TextChoices):
        WITHDRAWN = "withdrawn", "Withdrawn"
        REINSTATED = "reinstated", "Reinstated"
        FEE_CHARGED = "fee_charged", "Fee charged"
        FEE_RETURNED = "fee_returned", "Fee given back"
        CREDIT_TAKEN = "credit_taken", "Credit taken back"
        CREDIT_RETURNED = "credit_returned", "Credit given back"
        LOST = "lost", "Lost"
        RECOVERED = "recovered", "Recovered"

    dispute = models.ForeignKey(Dispute, on_delete=models.PROTECT, related_name="movements")
    kind = models.CharField(max_length=16, choices=Kind)
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()
    owed_minor = models.BigIntegerField(default=0)
    balance_minor = models.BigIntegerField(default=0)
    provider_transaction_id = models.CharField(max_length=64, blank=True, default="")
    at = models.DateTimeField()
    recorded_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "dispute_movement"
        ordering = ["recorded_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["dispute", "provider_transaction_id", "kind"],
                condition=Q(provider_transaction_id__gt=""),
                name="dispute_transaction_once",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind__in=["withdrawn", "reinstated", "fee_charged", "fee_returned"],
                    provider_transaction_id__gt="",
                )
                | Q(
                    kind__in=["credit_taken", "credit_returned", "lost", "recovered"],
                    provider_transaction_id="",
                ),
                name="dispute_movement_kind",
            ),
            models.CheckConstraint(
                condition=Q(owed_minor=0, balance_minor=0) | Q(kind__in=["lost", "recovered"]),
                name="dispute_movement_only_losses_have_parts",
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0, owed_minor__gte=0, balance_minor__gte=0)
                & Q(amount_minor__gte=F("owed_minor") + F("balance_minor")),
                name="dispute_movement_parts_within_it",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_minor} {self.currency}"

    @property
    def loss_minor(self) -> int:
        """What of it is our loss, of what was lost."""
        return int(self.amount_minor - self.owed_minor - self.balance_minor)
