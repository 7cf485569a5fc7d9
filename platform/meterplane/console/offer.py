"""What models cost: the versions of the price books.

A draft's prices and entries can be edited here, an entry also by a form of its own
(`entry_editor`); a published version never again (PostgreSQL refuses too). A draft that has
entries is rated by those, and gets its prices as it is published.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminTextareaWidget

from billing.invoicing.preview import preview_version
from billing.pricing.copy import draft_copy
from billing.pricing.entry_read import read_entries
from billing.pricing.models import Price, PriceBook, PriceBookVersion, PriceEntry
from billing.pricing.publish import publish
from meterplane.console import shown
from meterplane.console.publishing import publish_page
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from meterplane.policy.compile import recompile_everyone

PREVIEWED_MAX = 50
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
    hide_title = True
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


class EntryForm(forms.ModelForm):  # type: ignore[type-arg]
    """One entry, checked as the API checks it."""

    class Meta:
        model = PriceEntry
        fields = ("position", "meter", "match", "price_model", "display_name")
        widgets = dict.fromkeys(
            ("match", "price_model"), UnfoldAdminTextareaWidget(attrs={"rows": 3})
        )

    def clean(self) -> dict[str, Any]:
        """Names what is wrong, and where in the price model."""
        said = super().clean() or {}
        names = ("meter", "match", "price_model", "display_name")
        entry = {name: said[name] for name in names if said.get(name) not in (None, "")}
        if "price_model" in entry:
            try:
                read_entries([entry], clock.now(), path="entry")
            except CallerError as refused:
                raise forms.ValidationError(refused.message) from None
        return said


class EntryInline(TabularInline):  # type: ignore[misc]  # unfold carries no types
    """What usage is rated by: a meter, a match and a price model in JSON."""

    model = PriceEntry
    form = EntryForm
    extra = 0
    hide_title = True
    ordering = ("position",)
    fields = ("position", "meter", "match", "price_model", "display_name", "as_form")
    readonly_fields = ("as_form",)

    @shown.column(description="Form")
    def as_form(self, row: PriceEntry) -> str:
        if row.pk is None or not is_draft(row.version):
            return amounts.NOTHING
        address = reverse("console:price_entry", args=[row.version_id, row.pk])
        return format_html('<a class="console-button" href="{}">Open</a>', address)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # whoever may see the version

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_draft(obj) and request.user.is_staff

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_draft(obj) and request.user.is_staff

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_draft(obj) and request.user.is_staff


@admin.register(PriceBookVersion, site=site)
class VersionPage(ReadOnly):
    """Draft a copy, edit its prices, publish it."""

    list_display = ("__str__", "book", "shown_status", "effective_at", "published_at")
    list_select_related = ("book",)
    list_filter = ("status", "book")
    inlines = (EntryInline, PriceInline)
    actions_detail = ("add_entry", "publish")
    actions = ("draft_a_copy", "preview", "publish_now", "publish_with_gaps")
    readonly_fields = (
        "id", "book", "number", "status", "effective_at", "published_at", "superseded_at",
    )  # fmt: skip
    fields = readonly_fields

    def get_inlines(self, request: HttpRequest, obj: Any) -> tuple[Any, ...]:
        """Unit prices of a draft that has entries are left out: publishing replaces them."""
        if is_draft(obj) and obj.entries.exists():
            return (EntryInline,)
        return self.inlines

    @shown.column(description="Status", label=VERSION_LABELS, ordering="status")
    def shown_status(self, row: PriceBookVersion) -> tuple[str, str]:
        return row.status, PriceBookVersion.Status(row.status).label

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A draft can be opened for its prices; its own fields are read-only even then."""
        return is_draft(obj) and request.user.is_staff

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """A version that is published has nothing to add or to publish."""
        row = self.get_object(request, str(object_id))
        return super().get_actions_detail(request, object_id) if is_draft(row) else []

    @shown.action(description="Add an entry", url_path="add-entry", icon="add")
    def add_entry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_or_404(request, object_id)
        return HttpResponseRedirect(reverse("console:price_entry_new", args=[row.pk]))

    @shown.action(description="Check and publish", url_path="publish", icon="rocket_launch")
    def publish(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return publish_page(request, self.row_or_404(request, object_id))

    @admin.action(description="Draft a copy of its prices")
    def draft_a_copy(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        for row in rows:
            if is_draft(row):
                messages.error(request, f"{row} is a draft itself: edit it")
                continue
            draft = draft_copy(row.id)
            self.note(request, draft, f"drafted from {row}")
            messages.success(request, f"{draft} holds the prices of {row}")

    @admin.action(description="Publish now: requests admitted from here on pay these prices")
    def publish_now(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        self._publish(request, rows, ())

    @admin.action(description="Publish now, and stop selling what has no price in it")
    def publish_with_gaps(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        self._publish(request, rows, ("gap",))

    @admin.action(description="Preview: who would pay how much more for last month's usage")
    def preview(self, request: HttpRequest, rows: "QuerySet[PriceBookVersion]") -> None:
        for row in rows:
            try:
                deltas = preview_version(row.id)
            except CallerError as refused:
                messages.error(request, refused.message)
                continue
            for each in deltas[:PREVIEWED_MAX]:
                if each.problem:
                    messages.error(request, f"{each.tenant}: {each.problem}")
                    continue
                old, new, more = (
                    amounts.minor(minor or 0, each.currency)
                    for minor in (each.old_minor, each.new_minor, each.difference_minor)
                )
                messages.info(request, f"{each.tenant}: {old} would be {new} ({more})")
            messages.info(request, f"v{row.number} concerns {len(deltas)} of the organisations")

    def _publish(
        self,
        request: HttpRequest,
        rows: "QuerySet[PriceBookVersion]",
        confirm: tuple[str, ...],
    ) -> None:
        for row in rows:
            try:
                with transaction.atomic():
                    publish(row.id, confirm=confirm)
            except CallerError as refused:
                messages.error(request, refused.message)
                continue
            recompile_everyone()
            self.note(request, row, "published")
            messages.success(request, f"v{row.number} is published")


def is_draft(version: Any) -> bool:
    """True for a version nobody has published yet."""
    return isinstance(version, PriceBookVersion) and version.status == PriceBookVersion.Status.DRAFT
