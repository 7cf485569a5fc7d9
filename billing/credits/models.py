"""Credit grants, what has become of them, and grants that come again.

Invariants held by PostgreSQL, beside the checks below:
- A grant and a movement are written once: no role may change or delete one, a trigger refuses it.
- What remains of a grant is never negative. `CreditRemaining` is a projection that only the trigger
  on movements writes: one update of one row, which also makes movements of a grant take turns.
- No more comes back to a grant from an invoice than that invoice drew, nor from disputes than they
  took. Only purchased credit is refunded, once, or disputed. What is drawn is drawn while the grant
  is live, what expires does so no earlier than its expiry.
- The n-th grant of a recurrence, and the successor of a grant that rolled over, exist once.
- No block of a budget is granted above what the credit of an organisation held to it covers: a
  trigger on `budget_window` reads `CreditHold.amount_nano`.

Why a projection and not a sum in a trigger: a sum must lock something against the movement that
another transaction is about to commit, and reads a grant's whole history each time. The projection
is that lock, is what a balance is read from, and `queries.remaining_derived` checks it.
"""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from tenants.scoping import TenantManager, TenantModel

PRIORITY_DEFAULT = 50
MODEL_LENGTH_MAX = 80
METER_LENGTH_MAX = 64


class Kind(models.TextChoices):
    """Purchased credit was paid for and can be refunded; promotional credit was given."""

    PURCHASED = "purchased", "Purchased"
    PROMOTIONAL = "promotional", "Promotional"


def _scope(length: int) -> Any:
    return ArrayField(models.CharField(max_length=length), default=list, blank=True)


class CreditRecurrence(TenantModel):
    """Grants of equal terms that begin a month apart: the n-th, from 0, n months after the first.

    Nothing begins at or after `ends_at`. Each lasts `term_months`; None: until it is used up.
    """

    kind = models.CharField(max_length=16, choices=Kind)
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()
    priority = models.PositiveSmallIntegerField(default=PRIORITY_DEFAULT)
    models_only = _scope(MODEL_LENGTH_MAX)
    meters_only = _scope(METER_LENGTH_MAX)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    term_months = models.PositiveSmallIntegerField(null=True, blank=True)
    rollover_max_minor = models.BigIntegerField(null=True, blank=True)
    reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=clock.now)
    created_by = models.CharField(max_length=120)
    idempotency_key = models.CharField(max_length=120)
    request_digest = models.CharField(max_length=64)

    class Meta:
        db_table = "credit_recurrence"
        ordering = ["-starts_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "idempotency_key"], name="credit_recurrence_once"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=Kind.values), name="credit_recurrence_kind"
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0), name="credit_recurrence_positive"
            ),
            models.CheckConstraint(
                condition=Q(priority__lte=100), name="credit_recurrence_priority"
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")),
                name="credit_recurrence_not_empty",
            ),
            models.CheckConstraint(
                condition=Q(term_months__isnull=True) | Q(term_months__range=(1, 120)),
                name="credit_recurrence_term",
            ),
            models.CheckConstraint(
                condition=Q(rollover_max_minor__isnull=True)
                | Q(rollover_max_minor__gt=0, term_months__isnull=False),
                name="credit_recurrence_rollover",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_minor} {self.currency} minor a month from {self.starts_at:%Y-%m-%d}"


class CreditGrant(TenantModel):
    """An amount that pays for usage from `effective_at` up to, not including, `expires_at`.

    `models_only` and `meters_only` name what it pays for; empty: everything. On its expiry up to
    `rollover_max_minor` of what is left go over to a grant for as long again.
    """

    kind = models.CharField(max_length=16, choices=Kind)
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()
    priority = models.PositiveSmallIntegerField(default=PRIORITY_DEFAULT)
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    models_only = _scope(MODEL_LENGTH_MAX)
    meters_only = _scope(METER_LENGTH_MAX)
    rollover_max_minor = models.BigIntegerField(null=True, blank=True)
    # DO_NOTHING: the database refuses by itself; Django would look for rows of every tenant.
    recurrence = models.ForeignKey(
        CreditRecurrence, on_delete=models.DO_NOTHING, null=True, blank=True, related_name="+"
    )
    occurrence = models.PositiveIntegerField(null=True, blank=True)
    rolled_from = models.OneToOneField(
        "self", on_delete=models.DO_NOTHING, null=True, blank=True, related_name="successor"
    )
    reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=clock.now)
    created_by = models.CharField(max_length=120)
    idempotency_key = models.CharField(max_length=120)
    request_digest = models.CharField(max_length=64)

    class Meta:
        db_table = "credit_grant"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "idempotency_key"], name="credit_grant_once"),
            models.UniqueConstraint(
                fields=["recurrence", "occurrence"], name="credit_grant_occurrence_once"
            ),
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="credit_grant_kind"),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="credit_grant_currency_iso"
            ),
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="credit_grant_positive"),
            models.CheckConstraint(condition=Q(priority__lte=100), name="credit_grant_priority"),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("effective_at")),
                name="credit_grant_not_empty",
            ),
            models.CheckConstraint(
                condition=Q(rollover_max_minor__isnull=True)
                | Q(rollover_max_minor__gt=0, expires_at__isnull=False),
                name="credit_grant_rollover",
            ),
            models.CheckConstraint(
                condition=Q(recurrence__isnull=True, occurrence__isnull=True)
                | Q(recurrence__isnull=False, occurrence__isnull=False),
                name="credit_grant_occurrence",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_minor} {self.currency} minor, {self.kind}"


class CreditMovement(TenantModel):
    """What became of a part of a grant; `amount_minor` is positive, `kind` says which way it went.

    `source_id` is what it was done for (an invoice, a credit note, the grant itself), so that it is
    done once. `at` is the instant it counts from: of what an invoice drew, the end of its period.
    `position` numbers what an invoice drew in the order of consumption.
    """

    class Kind(models.TextChoices):
        DRAWN = "drawn", "Drawn"
        RESTORED = "restored", "Restored"
        EXPIRED = "expired", "Expired"
        REFUNDED = "refunded", "Refunded"
        ROLLED_OVER = "rolled_over", "Rolled over"
        DISPUTED = "disputed", "Disputed"
        REINSTATED = "reinstated", "Reinstated"

    grant = models.ForeignKey(CreditGrant, on_delete=models.DO_NOTHING, related_name="movements")
    kind = models.CharField(max_length=16, choices=Kind)
    amount_minor = models.BigIntegerField()
    source_id = models.UUIDField()
    invoice_id = models.UUIDField(null=True, blank=True)
    position = models.PositiveIntegerField(default=1)
    at = models.DateTimeField()
    recorded_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "credit_movement"
        ordering = ["-recorded_at", "-id"]
        indexes = [models.Index(fields=["tenant", "invoice_id"], name="credit_movement_invoice")]
        constraints = [
            models.UniqueConstraint(
                fields=["grant", "kind", "source_id"], name="credit_movement_once"
            ),
            models.UniqueConstraint(
                fields=["kind", "source_id", "position"], name="credit_movement_position_once"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["drawn", "restored"], invoice_id__isnull=False)
                | Q(
                    kind__in=["expired", "refunded", "rolled_over", "disputed", "reinstated"],
                    invoice_id__isnull=True,
                ),
                name="credit_movement_kind",
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0), name="credit_movement_positive"
            ),
            models.CheckConstraint(
                condition=~Q(kind="drawn") | Q(source_id=F("invoice_id")),
                name="credit_movement_drawn_for_invoice",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["refunded", "rolled_over"]) | Q(source_id=F("grant")),
                name="credit_movement_once_a_grant",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_minor}"


class CreditRemaining(models.Model):
    """What remains of a grant: a projection of its movements, written by their trigger alone."""

    grant = models.OneToOneField(
        CreditGrant, on_delete=models.DO_NOTHING, primary_key=True, related_name="remaining"
    )
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    remaining_minor = models.BigIntegerField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        db_table = "credit_remaining"
        verbose_name_plural = "credit remaining"
        constraints = [
            models.CheckConstraint(
                condition=Q(remaining_minor__gte=0), name="credit_remaining_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return str(self.remaining_minor)


class CreditHold(TenantModel):
    """An organisation that is held to its credit, or was; `credits.hold` tells what it means.

    `generation` numbers the times of being held. What was spent is counted from the day
    `counted_from`: `opening_nano` of it before `held_since`, and `settled_nano` before the end of
    the last closed period. `amount_nano` is the most that the compiled policies say is covered, now
    or at an instant to come; `next_look_at`, when they are to be compiled anew.
    """

    is_held = models.BooleanField(default=True)
    generation = models.PositiveIntegerField(default=1)
    held_since = models.DateTimeField(default=clock.now)
    counted_from = models.DateField()
    opening_nano = models.BigIntegerField(default=0)
    settled_nano = models.BigIntegerField(default=0)
    amount_nano = models.BigIntegerField(default=0)
    next_look_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "credit_hold"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="credit_hold_once"),
            models.CheckConstraint(
                condition=Q(opening_nano__gte=0, settled_nano__gte=0, amount_nano__gte=0),
                name="credit_hold_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(generation__gte=1), name="credit_hold_generation_counts"
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_look_at"], condition=Q(is_held=True), name="credit_hold_next_look"
            ),
        ]

    def __str__(self) -> str:
        return f"{'held' if self.is_held else 'not held'} since {self.held_since}"
