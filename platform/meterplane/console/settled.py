"""Whether payments add up: what is not the same here and at the provider, open ones first."""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html

from billing.payments.models import PaymentFinding, ReconciledDay
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts

STATE_LABELS = {"open": "danger", "closed": "success"}
_OF_INVOICE = (PaymentFinding.Kind.INVOICE, PaymentFinding.Kind.PAYMENT)


@admin.register(PaymentFinding, site=site)
class FindingPage(ReadOnly):
    """A finding is closed by the first comparison that does not find it any more."""

    list_display = ("shown_state", "day", "kind", "problem", "said", "opened_at", "closed_at")
    list_filter = (("closed_at", admin.EmptyFieldListFilter), "kind", "problem", "day")
    search_fields = ("our_id", "their_id", "said")
    ordering = ("-closed_at", "-opened_at")  # PostgreSQL has nulls, the open ones, first
    fields = (
        "shown_state", "said", "provider", "kind", "problem", "day", "ours", "their_id",
        "opened_at", "seen_at", "closed_at",
    )  # fmt: skip
    readonly_fields = fields

    @shown.column(description="State", label=STATE_LABELS, ordering="closed_at")
    def shown_state(self, row: PaymentFinding) -> tuple[str, str]:
        return ("closed", "Closed") if row.closed_at else ("open", "Open")

    @shown.column(description="Ours")
    def ours(self, row: PaymentFinding) -> str:
        if not row.our_id:
            return amounts.NOTHING
        if row.kind not in _OF_INVOICE:
            return str(row.our_id)
        where = reverse("console:invoicing_invoice_change", args=[row.our_id])
        return format_html('<a href="{}" class="underline">{}</a>', where, row.our_id)


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
