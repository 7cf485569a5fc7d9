"""Disputed payments: until when evidence is due, what each moved, and the list as JSON and CSV.

They are answered on the provider's own pages, where the evidence is kept.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.contrib import admin
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from billing.payments.dispute_models import UNANSWERED
from billing.payments.disputes_written import STATES, csv_text, disputes_listed, row_of
from billing.payments.models import Dispute, DisputeMovement
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts, clock

DUE_SOON = timedelta(days=3)
STATUS_LABELS = {
    "warning_needs_response": "warning",
    "warning_under_review": "info",
    "warning_closed": "success",
    "prevented": "success",
    "needs_response": "danger",
    "under_review": "warning",
    "lost": "danger",
    "appeal_needs_response": "danger",
    "appeal_under_review": "warning",
    "won": "success",
}


class StateFilter(admin.SimpleListFilter):
    """As an operator asks: what is open, and what belongs to no payment of ours."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Dispute]") -> "QuerySet[Dispute]":
        return queryset.filter(STATES.get(self.value() or "", Q()))


class MovementInline(ReadOnlyInline):
    """What it moved, in order, each with its entry."""

    model = DisputeMovement
    fields = ("kind", "amount", "owed", "balance", "provider_transaction_id", "at", "entry")
    readonly_fields = fields
    ordering = ("recorded_at", "id")

    @shown.column(description="Amount")
    def amount(self, row: DisputeMovement) -> str:
        return amounts.minor(row.amount_minor, row.currency)

    @shown.column(description="Promised back anyway")
    def owed(self, row: DisputeMovement) -> str:
        return amounts.minor(row.owed_minor, row.currency)

    @shown.column(description="Paid too much")
    def balance(self, row: DisputeMovement) -> str:
        return amounts.minor(row.balance_minor, row.currency)

    @shown.column(description="In the ledger")
    def entry(self, row: DisputeMovement) -> str:
        where = reverse("console:ledger_ledgerentry_changelist")
        return format_html('<a href="{}?q={}" class="underline">entry</a>', where, row.id)


@admin.register(Dispute, site=site)
class DisputePage(ReadOnly):
    """Open ones first, by when evidence is due."""

    list_display = (
        "provider_dispute_id", "tenant", "shown_status", "amount", "shown_reason", "evidence_due",
        "of", "opened_at",
    )  # fmt: skip
    list_select_related = ("tenant", "invoice", "top_up")
    list_filter = (StateFilter, "status", "tenant")
    search_fields = (
        "provider_dispute_id", "charge_id", "payment_intent_id", "invoice__number", "tenant__slug",
    )  # fmt: skip
    ordering = (F("closed_at").desc(nulls_first=True), F("evidence_due_at").asc(nulls_last=True))
    actions_list = ("as_csv", "as_json")
    inlines = (MovementInline,)
    fields = (
        "provider_dispute_id", "tenant", "shown_status", "note", "amount", "shown_reason",
        "evidence_due", "has_evidence", "of", "provider", "charge_id", "payment_intent_id",
        "opened_at", "closed_at", "checked_at",
    )  # fmt: skip
    readonly_fields = fields

    @shown.column(description="Status", label=STATUS_LABELS, ordering="status")
    def shown_status(self, row: Dispute) -> tuple[str, str]:
        return row.status, Dispute.Status(row.status).label

    @shown.column(description="Amount", ordering="amount_minor")
    def amount(self, row: Dispute) -> str:
        return amounts.minor(row.amount_minor, row.currency)

    @shown.column(description="Reason", ordering="reason")
    def shown_reason(self, row: Dispute) -> str:
        return row.reason.replace("_", " ")

    @shown.column(description="Evidence due (UTC)", ordering="evidence_due_at")
    def evidence_due(self, row: Dispute) -> str:
        if row.status not in UNANSWERED:
            return amounts.NOTHING
        return shown.utc(row.evidence_due_at)

    @shown.column(description="Payment of")
    def of(self, row: Dispute) -> str:
        if row.invoice is not None:
            where = reverse("console:invoicing_invoice_change", args=[row.invoice_id])
            return format_html('<a href="{}" class="underline">{}</a>', where, row.invoice.number)
        return "a top-up" if row.top_up_id is not None else "not known"

    @shown.action(description="CSV", url_path="csv", icon="download")
    def as_csv(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(
            csv_text(disputes_listed(request.GET.get("state", ""))),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="disputes.csv"'},
        )

    @shown.action(description="JSON", url_path="json", icon="data_object")
    def as_json(self, request: HttpRequest) -> HttpResponse:
        rows = [row_of(each) for each in disputes_listed(request.GET.get("state", ""))]
        return HttpResponse(msgspec.json.encode(rows), content_type="application/json")


def open_disputes() -> list[dict[str, Any]]:
    """A figure of the first page, where there is something to tell. In the system's door."""
    rows = Dispute.objects.filter(STATES["open"])
    parked = Dispute.objects.filter(STATES["parked"]).count()
    waiting = rows.filter(status__in=UNANSWERED, evidence_due_at__isnull=False)
    first: datetime | None = (
        waiting.order_by("evidence_due_at").values_list("evidence_due_at", flat=True).first()
    )
    count = rows.count()
    if not count and not parked:
        return []
    alarm = ""
    if parked:
        alarm = f"{parked} of payments that are not known"
    elif first is not None and first < clock.now() + DUE_SOON:
        alarm = f"evidence is due by {shown.utc(first)}"
    return [
        {
            "label": "Open disputes",
            "value": f"{count:,}",
            "note": f"evidence is due by {shown.utc(first)}" if first else "all answered",
            "alarm": alarm,
            "url": reverse("console:payments_dispute_changelist"),
        }
    ]
