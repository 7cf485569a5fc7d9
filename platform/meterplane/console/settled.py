"""Whether payments add up: what is not the same here and at the provider, open ones first.

Guarantees: a finding is acknowledged by the verb, under the name of who is signed in, and that is
remembered in its history. The file has the rows of the list as it is filtered.
"""

import csv
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.payments.models import PaymentFinding, ReconciledDay
from billing.payments.reconcile.acknowledge import NOTE_CHARS_MAX, acknowledge
from billing.payments.reconcile.report import last_compared
from billing.payments.stripe.dashboard import page_of
from meterplane.console import shown
from meterplane.console.journals import age
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.usage_written import literal

STATE_LABELS = {"open": "danger", "acknowledged": "warning", "closed": "success"}
CSV_HEADER = (
    "id", "state", "kind", "problem", "day", "ours", "theirs", "our_amount", "their_amount", "said",
    "opened_at", "seen_at", "closed_at", "acknowledged_at", "acknowledged_by", "acknowledgement",
)  # fmt: skip
_K = PaymentFinding.Kind
# Where a row of ours of each kind is shown.
_PAGES = {
    _K.INVOICE: "invoicing_invoice_change",
    _K.PAYMENT: "invoicing_invoice_change",
    _K.REFUND: "payments_refund_change",
    _K.CREDIT_NOTE: "invoicing_creditnote_change",
    _K.CUSTOMER: "tenants_organisation_change",
}


class StateFilter(admin.SimpleListFilter):
    """As an operator asks: what nobody has looked at, what somebody does something about."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("open", "Open"), ("acknowledged", "Acknowledged"), ("closed", "Closed")]

    def queryset(
        self, request: HttpRequest, queryset: "QuerySet[PaymentFinding]"
    ) -> "QuerySet[PaymentFinding]":
        if self.value() == "closed":
            return queryset.exclude(closed_at=None)
        if self.value() in ("open", "acknowledged"):
            is_new = self.value() == "open"
            return queryset.filter(closed_at=None, acknowledged_at__isnull=is_new)
        return queryset


class AcknowledgeForm(forms.Form):
    """What is done about it."""

    note = forms.CharField(
        max_length=NOTE_CHARS_MAX,
        widget=UnfoldAdminTextInputWidget,
        help_text="What is known of it, and what is done about it.",
    )


@admin.register(PaymentFinding, site=site)
class FindingPage(ReadOnly):
    """A finding is closed by the first comparison that does not find it any more."""

    list_display = (
        "shown_state", "what", "said", "our_amount", "their_amount", "age", "theirs",
    )  # fmt: skip
    list_filter = (StateFilter, "kind", "problem", "day")
    search_fields = ("our_id", "their_id", "said", "acknowledgement")
    ordering = ("-closed_at", "-opened_at")  # PostgreSQL has nulls, the open ones, first
    list_before_template = "console/compared.html"
    fields = (
        "state", "said", "our_amount", "their_amount", "ours", "theirs", "kind", "problem",
        "provider", "day", "opened_at", "seen_at", "closed_at", "acknowledged_at",
        "acknowledged_by", "acknowledgement",
    )  # fmt: skip
    readonly_fields = fields
    actions_detail = ("acknowledge",)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        last = last_compared()
        asked = {name: value for name, value in request.GET.items() if name != "p"}
        told = {
            "at": shown.utc(last.compared_at),
            "kinds": [each for each in last.kinds if each.compared],
            "days": last.days,
            "is_empty": last.compared_at is None,
            "open": PaymentFinding.objects.filter(closed_at=None).count(),
            "csv_url": f"{reverse('console:payment_findings_csv')}?{urlencode(asked)}",
        }
        context = {**(extra_context or {}), "compared": told}
        page: HttpResponse = super().changelist_view(request, context)
        return page

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """What is closed needs nobody's attention."""
        row = self.row_or_404(request, object_id)
        return [] if row.closed_at else super().get_actions_detail(request, object_id)

    @shown.action(description="Acknowledge", url_path="acknowledge", icon="check")
    def acknowledge(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_or_404(request, object_id)
        here = reverse("console:payments_paymentfinding_change", args=[row.pk])
        form = AcknowledgeForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            note = form.cleaned_data["note"]
            try:
                acknowledge(row.pk, by=request.user.get_username(), note=note)
            except CallerError as refused:
                form.add_error(refused.field, refused.message)
            else:
                self.note(request, row, f"acknowledged: {note}")
                messages.success(request, "It is acknowledged, and stays open until it is gone.")
                return HttpResponseRedirect(here)
        context = {
            **site.each_context(request),
            "title": "Acknowledge a finding",
            "said": row.said,
            "form": form,
            "submit_label": "Acknowledge",
            "back_url": here,
            "back_label": "Back to the finding",
        }
        return TemplateResponse(request, "console/form.html", context)

    @shown.column(description="State", label=STATE_LABELS, ordering="closed_at")
    def shown_state(self, row: PaymentFinding) -> tuple[str, str]:
        return (name := state_of(row)), name.capitalize()

    @shown.column(description="State")
    def state(self, row: PaymentFinding) -> str:
        return state_of(row).capitalize()

    @shown.column(description="Kind", ordering="kind")
    def what(self, row: PaymentFinding) -> str:
        return f"{row.get_kind_display()}: {row.get_problem_display().lower()}"

    @shown.column(description="Age", ordering="opened_at")
    def age(self, row: PaymentFinding) -> str:
        until = row.closed_at or clock.now()
        return age(int((until - row.opened_at).total_seconds()))

    @shown.column(description="Ours")
    def ours(self, row: PaymentFinding) -> str:
        page = _PAGES.get(_K(row.kind))
        if page is None or not _is_uuid(row.our_id):
            return row.our_id or amounts.NOTHING
        where = reverse(f"console:{page}", args=[row.our_id])
        return format_html('<a href="{}" class="underline">{}</a>', where, row.our_id)

    @shown.column(description="Theirs")
    def theirs(self, row: PaymentFinding) -> str:
        where = page_of(row.their_id)
        if not where:
            return row.their_id or amounts.NOTHING
        return format_html(
            '<a href="{}" class="underline" rel="noreferrer">{}</a>', where, row.their_id
        )


@admin.register(ReconciledDay, site=site)
class DayPage(ReadOnly):
    """Which days were compared, and when they are again."""

    list_display = ("day", "provider", "compared", "findings", "compared_at", "due_at")
    ordering = ("-day",)

    @shown.column(description="Open findings")
    def findings(self, row: ReconciledDay) -> int:
        return PaymentFinding.objects.filter(
            provider=row.provider, day=row.day, closed_at=None
        ).count()


def findings_csv(request: HttpRequest) -> HttpResponse:
    """All that the list shows, on however many pages."""
    page = site.get_model_admin(PaymentFinding)
    rows = page.get_changelist_instance(request).get_queryset(request)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="payment-findings.csv"'
    response["Cache-Control"] = "no-store"
    writer = csv.writer(response, lineterminator="\r\n")
    writer.writerow(CSV_HEADER)
    for row in rows:
        writer.writerow(
            [
                row.id, state_of(row), row.kind, row.problem, row.day, literal(row.our_id),
                literal(row.their_id), row.our_amount, row.their_amount, literal(row.said),
                _instant(row.opened_at), _instant(row.seen_at), _instant(row.closed_at),
                _instant(row.acknowledged_at), literal(row.acknowledged_by),
                literal(row.acknowledgement),
            ]
        )  # fmt: skip
    return response


def finding_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [path("findings.csv", site.admin_view(findings_csv), name="payment_findings_csv")]


def state_of(row: PaymentFinding) -> str:
    """What an operator has to do with it."""
    if row.closed_at is not None:
        return "closed"
    return "acknowledged" if row.acknowledged_at is not None else "open"


def _instant(at: Any) -> str:
    return at.isoformat() if at is not None else ""


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
