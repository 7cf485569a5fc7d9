"""Rows of what was heard and compared. They belong to no tenant: the system's role alone sees any.

Written by `catch_up` and by `reconcile`, and by nobody else.
"""

from django.db import models
from django.db.models import Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7


class EventWatermark(models.Model):
    """Up to when the provider's list of events was read: all before is in the inbox."""

    provider = models.CharField(primary_key=True, max_length=16)
    read_until = models.DateTimeField()

    class Meta:
        db_table = "event_watermark"

    def __str__(self) -> str:
        return f"{self.provider}: {self.read_until:%Y-%m-%d %H:%M:%S}"


class ReconciledDay(models.Model):
    """What was made at the provider on one UTC day, and when that is compared with ours again."""

    provider = models.CharField(max_length=16)
    day = models.DateField()
    due_at = models.DateTimeField(default=clock.now)
    compared_at = models.DateTimeField(null=True, blank=True)
    compared = models.PositiveIntegerField(default=0)
    # By kind: {"invoice": {"compared": 7, "agreed": 6}, ...}
    counts = models.JSONField(default=dict, db_default={})

    class Meta:
        db_table = "reconciled_day"
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "day"], name="reconciled_day_once")
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.day}"


class PaymentFinding(models.Model):
    """Something that is not the same here and at the provider. Opened once, closed when it is gone.

    `our_id` is of the row here, `their_id` of the object there; empty where there is none. Amounts
    are texts with their currencies, as the sides had them when it was last seen.

    A person acknowledges it: somebody knows of it and says what is done. It stays open until it is
    gone, and what is found otherwise than it was acknowledged is not acknowledged any more.
    """

    class Kind(models.TextChoices):
        INVOICE = "invoice", "Invoice"
        PAYMENT = "payment", "Payment"
        REFUND = "refund", "Refund"
        CREDIT_NOTE = "credit_note", "Credit note"
        TOP_UP = "top_up", "Top-up"
        CUSTOMER = "customer", "Customer"
        DISPUTE = "dispute", "Dispute"
        CLEARING = "clearing", "Clearing account"

    class Problem(models.TextChoices):
        MISSING_THERE = "missing_there", "Missing there"
        MISSING_HERE = "missing_here", "Missing here"
        DIFFERENT = "different", "Different"
        LEFT_OVER = "left_over", "Not cleared"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    provider = models.CharField(max_length=16)
    day = models.DateField()
    kind = models.CharField(max_length=16, choices=Kind)
    problem = models.CharField(max_length=16, choices=Problem)
    our_id = models.CharField(max_length=64, blank=True, default="")
    their_id = models.CharField(max_length=64, blank=True, default="")
    said = models.TextField()
    our_amount = models.CharField(max_length=40, blank=True, default="", db_default="")
    their_amount = models.CharField(max_length=40, blank=True, default="", db_default="")
    opened_at = models.DateTimeField(default=clock.now)
    seen_at = models.DateTimeField(default=clock.now)
    closed_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=254, blank=True, default="", db_default="")
    acknowledgement = models.CharField(max_length=400, blank=True, default="", db_default="")

    class Meta:
        db_table = "payment_finding"
        ordering = ["-opened_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "kind", "problem", "our_id", "their_id"],
                condition=Q(closed_at__isnull=True),
                name="payment_finding_open_once",
            ),
            models.CheckConstraint(
                condition=Q(problem__in=["missing_there", "left_over"], our_id__gt="")
                | Q(problem="missing_here", their_id__gt="")
                | Q(problem="different", our_id__gt="", their_id__gt=""),
                name="payment_finding_names_a_side",
            ),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(closed_at__gte=models.F("opened_at")),
                name="payment_finding_closed_after",
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_at__isnull=True, acknowledged_by="", acknowledgement="")
                | Q(
                    acknowledged_at__isnull=False,
                    acknowledged_by__gt="",
                    acknowledgement__gt="",
                ),
                name="payment_finding_acknowledged_by_someone",
            ),
        ]

    def __str__(self) -> str:
        return self.said
