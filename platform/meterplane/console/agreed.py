"""Contracts of organisations, and what happened to each. To look at: a contract never changes."""

from django.contrib import admin

from billing.pricing.models import ContractEvent, TenantContract
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts


class EventInline(ReadOnlyInline):
    """Who did what to it."""

    model = ContractEvent
    fields = ("at", "kind", "by", "before", "after")
    ordering = ("at",)


@admin.register(TenantContract, site=site)
class ContractPage(ReadOnly):
    """What tenants agreed on, the newest first."""

    list_display = (
        "__str__", "tenant", "book", "starts_at", "ends_at", "discount_percent", "minimum",
        "commitment",
    )  # fmt: skip
    list_select_related = ("tenant", "book")
    list_filter = ("tenant", "book")
    inlines = (EventInline,)
    fields = (
        "id", "tenant", "number", "note", "book", "currency", "starts_at", "ends_at",
        "pinned_version", "pinned_until", "discount_percent", "minimum", "maximum", "commitment",
        "entries", "supersedes", "created_at", "created_by",
    )  # fmt: skip
    readonly_fields = ("id", "minimum", "maximum", "commitment")

    @shown.column(description="Minimum spend")
    def minimum(self, row: TenantContract) -> str:
        return _amount(row.minimum_minor, row.currency)

    @shown.column(description="Maximum spend")
    def maximum(self, row: TenantContract) -> str:
        return _amount(row.maximum_minor, row.currency)

    @shown.column(description="Commitment")
    def commitment(self, row: TenantContract) -> str:
        return _amount(row.commitment_minor, row.currency)


def _amount(amount_minor: int | None, currency: str) -> str:
    return amounts.NOTHING if amount_minor is None else amounts.minor(amount_minor, currency)
