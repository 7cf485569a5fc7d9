"""Invoices with their lines, and how collecting them stands.

To look at, but for what is given back of them (`given_back`), done about them (`corrected`) and
payments by hand (`collected`).
"""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from billing.invoicing.account import whole
from billing.invoicing.models import BillingPeriod, CreditNote, Invoice, InvoiceLine
from billing.payments.models import PaymentRun, PaymentStep
from billing.payments.withdraw import UNCOLLECTIBLE, VOID
from meterplane.console import shown
from meterplane.console.collected import invoice_payment
from meterplane.console.corrected import refund_invoice, withdraw_invoice
from meterplane.console.given_back import give_back
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts

NOTE_ID = "collection-note"  # where links to what differs lead
INVOICE_LABELS = {
    "draft": "info",
    "finalising": "info",
    "open": "warning",
    "paid": "success",
    "void": "info",
    "uncollectible": "danger",
}
COLLECTION_LABELS = {
    "pending": "info",
    "awaiting_payment": "warning",
    "carried": "info",
    "parked": "danger",
    "done": "success",
}
STEP_LABELS = {
    "ready": "info",
    "sent": "warning",
    "unclear": "danger",
    "done": "success",
    "failed": "danger",
}


class LineInline(ReadOnlyInline):
    """What an invoice adds up from."""

    model = InvoiceLine
    fields = (
        "position", "kind", "model", "service_tier", "meter", "shown_quantity", "unit_price",
        "amount", "is_late", "description",
    )  # fmt: skip
    readonly_fields = ("shown_quantity", "unit_price", "amount")
    ordering = ("position",)

    @shown.column(description="Quantity")
    def shown_quantity(self, row: InvoiceLine) -> str:
        return f"{whole(row.quantity):,}" if row.meter else amounts.NOTHING

    @shown.column(description="Unit price")
    def unit_price(self, row: InvoiceLine) -> str:
        if row.unit_price_pico is None:
            return amounts.NOTHING
        return shown.pico(row.unit_price_pico, row.invoice.currency)

    @shown.column(description="Amount")
    def amount(self, row: InvoiceLine) -> str:
        return amounts.minor(row.amount_minor, row.invoice.currency)


class CreditNoteInline(ReadOnlyInline):
    """What was given back of an invoice."""

    model = CreditNote
    fields = ("total", "effect", "reason", "created_at")
    readonly_fields = ("total",)
    ordering = ("created_at",)
    show_change_link = True
    hide_title = False  # its number, and the way to it

    @shown.column(description="Total")
    def total(self, row: CreditNote) -> str:
        return amounts.minor(row.total_minor, row.currency)


@admin.register(Invoice, site=site)
class InvoicePage(ReadOnly):
    """Invoices of all organisations."""

    list_display = (
        "__str__", "tenant", "kind", "period_start", "period_end", "total", "shown_status",
        "shown_collection",
    )  # fmt: skip
    list_select_related = ("tenant",)
    list_filter = ("status", "kind", "collection_state", "tenant")
    search_fields = ("number", "tenant__slug", "tenant__name")
    inlines = (LineInline, CreditNoteInline)
    actions_detail = ("record_payment", "give_back", "refund", "write_off", "void")
    fields = (
        "id", "tenant", "kind", "number", "period_start", "period_end", "status", "total",
        "currency", "created_at", "finalised_at", "paid_at", "hosted_url", "collection_state",
        "shown_note", "payment_attempts", "content_hash",
    )  # fmt: skip
    readonly_fields = ("id", "total", "shown_note")

    @shown.action(description="Give back", url_path="give-back", icon="undo")
    def give_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return give_back(request, self.row_or_404(request, object_id))

    @shown.action(description="Refund", url_path="refund", icon="currency_exchange")
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return refund_invoice(request, self.row_or_404(request, object_id))

    @shown.action(description="Write off", url_path="write-off", icon="money_off")
    def write_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return withdraw_invoice(request, self.row_or_404(request, object_id), UNCOLLECTIBLE)

    @shown.action(description="Void", url_path="void", icon="block")
    def void(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return withdraw_invoice(request, self.row_or_404(request, object_id), VOID)

    @shown.action(description="Record payment", url_path="payment", icon="payments")
    def record_payment(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return invoice_payment(request, self.row_or_404(request, object_id))

    @shown.column(description="Collection note")
    def shown_note(self, row: Invoice) -> str:
        """By lines: of a parked one it is what differs."""
        if not row.collection_note:
            return amounts.NOTHING
        said = '<div id="{}" class="console-note">{}</div>'
        return format_html(said, NOTE_ID, row.collection_note)

    @shown.column(description="Total", ordering="total_minor")
    def total(self, row: Invoice) -> str:
        return amounts.minor(row.total_minor, row.currency)

    @shown.column(description="Status", label=INVOICE_LABELS, ordering="status")
    def shown_status(self, row: Invoice) -> tuple[str, str]:
        return row.status, Invoice.Status(row.status).label

    @shown.column(description="Collection", label=COLLECTION_LABELS, ordering="collection_state")
    def shown_collection(self, row: Invoice) -> tuple[str, str]:
        return row.collection_state, Invoice.Collection(row.collection_state).label


@admin.register(BillingPeriod, site=site)
class PeriodPage(ReadOnly):
    """Closed periods, empty ones included."""

    list_display = ("__str__", "tenant", "starts_at", "ends_at", "closed_at")
    list_select_related = ("tenant",)
    list_filter = ("tenant",)


@admin.register(PaymentRun, site=site)
class RunPage(ReadOnly):
    """One invoice's way to the provider. The lease's token is a machine's business."""

    list_display = ("__str__", "tenant", "provider_invoice_id", "attempts", "next_attempt_at")
    list_select_related = ("tenant",)
    search_fields = ("provider_invoice_id", "customer_id", "tenant__slug")
    fields = (
        "id", "tenant", "invoice", "provider", "customer_id", "provider_invoice_id", "digest",
        "lease_until", "attempts", "next_attempt_at", "checked_at", "created_at",
    )  # fmt: skip
    readonly_fields = ("id",)


@admin.register(PaymentStep, site=site)
class StepPage(ReadOnly):
    """Every call to the provider, as it was frozen before it was sent."""

    list_display = (
        "kind", "revision", "tenant", "shown_state", "attempts", "result_id", "last_sent_at",
        "done_at",
    )  # fmt: skip
    list_select_related = ("tenant",)
    list_filter = ("state", "kind", "tenant")
    search_fields = ("result_id", "idempotency_key", "tenant__slug")

    @shown.column(description="State", label=STEP_LABELS, ordering="state")
    def shown_state(self, row: PaymentStep) -> tuple[str, str]:
        return row.state, PaymentStep.State(row.state).label
