"""What models cost: the versions of the price books.

A draft's prices can be edited here; a published version never again (PostgreSQL refuses too).
"""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.pricing.models import Price, PriceBook, PriceBookVersion
from billing.pricing.publish import create_draft, publish
from billing.pricing.queries import prices_of
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.policy.compile import recompile_everyone

VERSION_LABELS = {"draft": "warning", "published": "success", "superseded": "info"}


@admin.register(PriceBook, site=site)
class PriceBookPage(ReadOnly):
    """Named sets of prices."""

    list_display = ("name", "currency", "created_at")
    search_fields = ("name",)


class PriceInline(TabularInline):  # type: ignore[misc]  # unfold carries no types
    """Prices of a version, in pico (1e-12) per unit. Editable while it is a draft.

    A model without batch prices is not offered in batches; publishing refuses some of the three.
    """

    model = Price
    extra = 0
    fields = (
        "model", "meter", "unit_price_pico", "per_million", "batch_unit_price_pico",
        "batch_per_million",
    )  # fmt: skip
    readonly_fields = ("model", "meter", "per_million", "batch_per_million")

    @shown.column(description="Per million units")
    def per_million(self, row: Price) -> str:
        return shown.pico(row.unit_price_pico * 1_000_000, row.version.book.currency)

    @shown.column(description="Batch, per million units")
    def batch_per_million(self, row: Price) -> str:
        if row.batch_unit_price_pico is None:
            return amounts.NOTHING
        return shown.pico(row.batch_unit_price_pico * 1_000_000, row.version.book.currency)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # whoever may see the version

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a draft holds every meter of every model from the start

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_draft(obj) and request.user.is_staff

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Price]":
        rows: QuerySet[Price] = super().get_queryset(request).select_related("version__book")
        return rows


@admin.register(PriceBookVersion, site=site)
class VersionPage(ReadOnly):
    """Draft a copy, edit its prices, publish it."""

    list_display = ("__str__", "book", "shown_status", "effective_at", "published_at")
    list_select_related = ("book",)
    list_filter = ("status", "book")
    inlines = (PriceInline,)
    actions = ("draft_a_copy", "publish_now")
    readonly_fields = (
        "id", "book", "number", "status", "effective_at", "published_at", "superseded_at",
    )  # fmt: skip
    fields = readonly_fields

    @shown.column(description="Status", label=VERSION_LABELS, ordering="status")
    def shown_status(self, row: PriceBookVersion) -> tuple[str, str]:
        return row.status, PriceBookVersion.Status(row.status).label

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A draft can be opened for its prices; its own fields are read-only even then."""
        return is_draft(obj) and request.user.is_staff

    @admin.action(description="Draft a copy of its prices")
    def draft_a_copy(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        for row in rows.select_related("book"):
            prices = prices_of(row.id)
            if prices is None:
                messages.error(request, f"{row} is a draft itself: edit it")
                continue
            draft = create_draft(
                book=row.book.name, currency=row.book.currency, prices=prices.prices
            )
            self.note(request, draft, f"drafted from {row}")
            messages.success(request, f"{draft} holds the prices of {row}")

    @admin.action(description="Publish now: requests admitted from here on pay these prices")
    def publish_now(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        for row in rows:
            try:
                with transaction.atomic():
                    publish(row.id)
            except CallerError as refused:
                messages.error(request, refused.message)
                continue
            recompile_everyone()
            self.note(request, row, "published")
            messages.success(request, f"v{row.number} is published")


def is_draft(version: Any) -> bool:
    """True for a version nobody has published yet."""
    return isinstance(version, PriceBookVersion) and version.status == PriceBookVersion.Status.DRAFT
