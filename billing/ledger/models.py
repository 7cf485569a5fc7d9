"""Entries, their legs, and the balances that follow from them.

Invariants held by PostgreSQL, beside the checks below:
- Entries and legs are inserted and never changed: no role of the application may update, delete or
  truncate, and a trigger refuses it to the owner too. Only a superuser who switches triggers off
  for a session gets past, and the audit names what was changed.
- When a transaction commits, each of its entries has as many legs as it says and they add up to
  zero in each currency (a deferred constraint trigger). An entry says its number of legs once and
  their positions are 1 to that number, so no leg can be added later.
- `ledger_balance` is written by the trigger on legs alone, in their own statement. No role of the
  application may write it.

Only `post` makes rows here; tests/architecture looks.
"""

from django.db import models
from django.db.models import Q

from billing.ledger.accounts import ACCOUNT_NAME_MAX, CREDITS_PROMOTIONAL, CREDITS_PURCHASED
from billing.ledger.audit_runs import AuditRun as AuditRun
from billing.ledger.entry import AMOUNT_MINOR_MAX, LEGS_MAX, MEMO_MAX, SOURCE_MAX
from meterplane.kernel import clock
from tenants.scoping import TenantModel

CURRENCY = r"^[A-Z]{3}$"
KIND = r"^[a-z][a-z0-9_.]{0,63}$"
ACCOUNT = (
    r"^(receivable|payments|credits:purchased|credits:promotional|deferred_revenue|refunds"
    r"|customer_balance|breakage|promotions|goodwill|bad_debt"
    r"|disputed|dispute_losses|dispute_fees|rounding|(revenue|tax):[A-Za-z0-9][A-Za-z0-9_.-]{0,63})$"
)


class LedgerEntry(TenantModel):
    """What happened to one source, once. `effective_at` is when; `created_at` when we wrote it."""

    kind = models.CharField(max_length=64)
    source_id = models.CharField(max_length=SOURCE_MAX)
    currency = models.CharField(max_length=3)
    leg_count = models.PositiveSmallIntegerField()
    content_hash = models.CharField(max_length=64)
    memo = models.CharField(max_length=MEMO_MAX, blank=True, default="")
    effective_at = models.DateTimeField()
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "ledger_entry"
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "ledger entries"
        indexes = [models.Index(fields=["tenant", "created_at"], name="ledger_entry_by_time")]
        constraints = [
            models.UniqueConstraint(
                fields=["source_id", "kind", "tenant"], name="ledger_entry_source_once"
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=CURRENCY), name="ledger_entry_currency_iso"
            ),
            models.CheckConstraint(condition=Q(kind__regex=KIND), name="ledger_entry_kind_form"),
            models.CheckConstraint(
                condition=Q(leg_count__gte=2, leg_count__lte=LEGS_MAX),
                name="ledger_entry_legs_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.source_id}"


class LedgerLeg(TenantModel):
    """One side of an entry: a debit is positive, a credit negative."""

    entry = models.ForeignKey(LedgerEntry, on_delete=models.PROTECT, related_name="legs")
    position = models.PositiveSmallIntegerField()
    account = models.CharField(max_length=ACCOUNT_NAME_MAX)
    currency = models.CharField(max_length=3)
    amount_minor = models.BigIntegerField()

    class Meta:
        db_table = "ledger_leg"
        ordering = ["entry", "position"]
        indexes = [
            # A statement's legs; the audit's sums.
            models.Index(
                fields=["tenant", "currency", "account", "entry"], name="ledger_leg_by_account"
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["entry", "position"], name="ledger_leg_position_once"),
            models.CheckConstraint(
                condition=Q(account__regex=ACCOUNT), name="ledger_leg_account_known"
            ),
            models.CheckConstraint(
                condition=~Q(amount_minor=0)
                & Q(amount_minor__gte=-AMOUNT_MINOR_MAX, amount_minor__lte=AMOUNT_MINOR_MAX),
                name="ledger_leg_amount_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.amount_minor}"


class LedgerBalance(TenantModel):
    """The sum of an account's legs, and how many they are: a projection, maintained by trigger."""

    currency = models.CharField(max_length=3)
    account = models.CharField(max_length=ACCOUNT_NAME_MAX)
    balance_minor = models.BigIntegerField()
    leg_count = models.BigIntegerField()

    class Meta:
        db_table = "ledger_balance"
        ordering = ["tenant", "currency", "account"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "currency", "account"], name="ledger_balance_once"
            ),
            # More credit cannot be drawn, refunded or let expire than there is.
            models.CheckConstraint(
                condition=~Q(account__in=[CREDITS_PURCHASED, CREDITS_PROMOTIONAL])
                | Q(balance_minor__lte=0),
                name="ledger_balance_credit_not_overdrawn",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.balance_minor} {self.currency}"
