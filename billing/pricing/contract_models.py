"""Contracts of tenants, and what happened to each.

Invariants held by PostgreSQL, beside the checks below: two contracts of a tenant never hold at one
instant (an exclusion constraint); what was agreed never changes: all an update may do is to end a
contract earlier. Events are written once.
"""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel


class TenantContract(TenantModel):
    """One version of what a tenant agreed on; see `contract.Terms`.

    `entries` is a list as `entry_json` writes it: it is agreed as a whole and never by the row.
    """

    number = models.PositiveIntegerField()
    note = models.CharField(max_length=200, blank=True, default="")
    # DO_NOTHING: the database refuses by itself; Django would look for contracts of every tenant.
    book = models.ForeignKey("pricing.PriceBook", on_delete=models.DO_NOTHING, related_name="+")
    currency = models.CharField(max_length=3)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    pinned_version = models.ForeignKey(
        "pricing.PriceBookVersion",
        on_delete=models.DO_NOTHING,
        related_name="+",
        null=True,
        blank=True,
    )
    pinned_until = models.DateTimeField(null=True, blank=True)
    discount_percent = models.DecimalField(max_digits=9, decimal_places=6, default=0)
    commitment_minor = models.BigIntegerField(null=True, blank=True)
    minimum_minor = models.BigIntegerField(null=True, blank=True)
    maximum_minor = models.BigIntegerField(null=True, blank=True)
    entries = models.JSONField(blank=True, default=list)
    supersedes = models.ForeignKey(
        "self", on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    created_at = models.DateTimeField(default=clock.now)
    created_by = models.CharField(max_length=120)

    class Meta:
        db_table = "contract"
        ordering = ["-number"]
        verbose_name = "contract"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "number"], name="contract_number_once"),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gte=F("starts_at")),
                name="contract_ends_after_it_starts",
            ),
            models.CheckConstraint(
                condition=Q(pinned_until__isnull=True) | Q(pinned_version__isnull=False),
                name="contract_pins_a_version",
            ),
            models.CheckConstraint(
                condition=Q(discount_percent__gte=0, discount_percent__lte=100),
                name="contract_discount_is_a_part",
            ),
            models.CheckConstraint(
                condition=Q(commitment_minor__isnull=True) | Q(commitment_minor__gte=0),
                name="contract_commitment_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(minimum_minor__isnull=True) | Q(minimum_minor__gte=0),
                name="contract_minimum_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(maximum_minor__isnull=True)
                | (
                    Q(maximum_minor__gte=0)
                    & (Q(minimum_minor__isnull=True) | Q(minimum_minor__lte=F("maximum_minor")))
                    & (
                        Q(commitment_minor__isnull=True)
                        | Q(commitment_minor__lte=F("maximum_minor"))
                    )
                ),
                name="contract_maximum_holds_the_others",
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="contract_currency_iso"
            ),
        ]

    def __str__(self) -> str:
        return f"contract {self.number} of {self.starts_at:%Y-%m-%d}"


class ContractEvent(TenantModel):
    """What somebody did to a contract: how it was before and after, written once."""

    class Kind(models.TextChoices):
        AGREED = "agreed", "Agreed"
        SUPERSEDED = "superseded", "Superseded"
        ENDED = "ended", "Ended"

    contract = models.ForeignKey(TenantContract, on_delete=models.PROTECT, related_name="events")
    kind = models.CharField(max_length=16, choices=Kind)
    at = models.DateTimeField(default=clock.now)
    by = models.CharField(max_length=120)
    before = models.JSONField(null=True)
    after = models.JSONField()

    class Meta:
        db_table = "contract_event"
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.kind} by {self.by}"
