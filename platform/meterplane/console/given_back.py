"""Credit notes: all of them with their lines and ledger entries, and the page that makes one.

Guarantees: a note is made by the verb that the control API calls, after a look at what exactly it
would give back: the verb itself, tried and taken back. A form sent twice makes one note. If what it
would give back has changed since it was looked at, it is shown again and nothing is made.
"""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from billing.invoicing.credit import create_credit_note, lines_left
from billing.invoicing.documents import CreditNoteView, credit_note
from billing.invoicing.models import (
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Invoice,
    InvoiceLine,
)
from billing.invoicing.printed import printed_credit_note
from billing.ledger.models import LedgerEntry, LedgerLeg
from meterplane.console import shown
from meterplane.console.note_form import NoteForm
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope

CREDITABLE = (Invoice.Status.OPEN, Invoice.Status.PAID)
EFFECT_LABELS = {"lowers_due": "info", "refund": "warning", "balance": "success"}
LEDGER_HEADERS = ["Entry", "Account", "Debit", "Credit"]


class NoteLineInline(ReadOnlyInline):
    """What of which line goes back."""

    model = CreditNoteLine
    fields = ("position", "description", "shown_quantity", "amount")
    readonly_fields = fields
    ordering = ("position",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("line", "note")

    @shown.column(description="Line")
    def description(self, row: CreditNoteLine) -> str:
        return f"{row.line.position}: {row.line.description}"

    @shown.column(description="Quantity")
    def shown_quantity(self, row: CreditNoteLine) -> str:
        return amounts.NOTHING if row.quantity is None else decimal_to_text(row.quantity)

    @shown.column(description="Amount")
    def amount(self, row: CreditNoteLine) -> str:
        return amounts.minor(row.amount_minor, row.note.currency)


class NoteTaxInline(ReadOnlyInline):
    """What of which tax goes back."""

    model = CreditNoteTax
    verbose_name_plural = "Taxes"
    fields = ("tax", "mode", "amount")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("tax", "note")

    @shown.column(description="Kind")
    def mode(self, row: CreditNoteTax) -> str:
        return str(row.tax.get_mode_display())

    @shown.column(description="Amount")
    def amount(self, row: CreditNoteTax) -> str:
        return amounts.minor(row.amount_minor, row.note.currency)


@admin.register(CreditNote, site=site)
class CreditNotePage(ReadOnly):
    """Credit notes of all organisations, the newest first."""

    list_display = ("number", "tenant", "invoice", "total", "shown_effect", "reason", "created_at")
    list_select_related = ("tenant", "invoice")
    list_filter = ("effect", "reason", "tenant", "created_at")
    search_fields = ("number", "invoice__number", "tenant__slug", "tenant__name", "memo")
    list_before_template = "console/credit_notes_hint.html"
    change_form_after_template = "console/entries.html"
    inlines = (NoteLineInline, NoteTaxInline)
    actions_detail = ("pdf",)
    fields = (
        "id", "tenant", "number", "invoice", "reason", "memo", "effect", "subtotal", "tax",
        "total", "created_at", "idempotency_key",
    )  # fmt: skip
    readonly_fields = ("id", "subtotal", "tax", "total")

    @shown.column(description="Effect", label=EFFECT_LABELS, ordering="effect")
    def shown_effect(self, row: CreditNote) -> tuple[str, str]:
        return row.effect, row.get_effect_display()

    @shown.column(description="Lines")
    def subtotal(self, row: CreditNote) -> str:
        return amounts.minor(row.subtotal_minor, row.currency)

    @shown.column(description="Tax on top")
    def tax(self, row: CreditNote) -> str:
        return amounts.minor(row.tax_exclusive_minor, row.currency)

    @shown.column(description="Total", ordering="total_minor")
    def total(self, row: CreditNote) -> str:
        return amounts.minor(row.total_minor, row.currency)

    @shown.action(description="PDF", url_path="pdf", icon="picture_as_pdf")
    def pdf(self, request: HttpRequest, object_id: str) -> HttpResponse:
        note = self.row_or_404(request, object_id)
        with tenant_scope(note.tenant_id):
            content = printed_credit_note(note.id)
        return HttpResponse(
            content,
            content_type="application/pdf",
            headers={"Content-Disposition": f'attachment; filename="{note.number}.pdf"'},
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """With what the ledger says of it."""
        entries = {"headers": LEDGER_HEADERS, "rows": _legs(object_id)}
        context = {**(extra_context or {}), "entries": entries}
        page: HttpResponse = super().change_view(request, object_id, form_url, context)
        return page


def give_back(request: HttpRequest, invoice: Invoice) -> HttpResponse:
    """Says what is left of an invoice, tries what is asked, and makes it once it is confirmed."""
    its_page = reverse("console:invoicing_invoice_change", args=[invoice.pk])
    if invoice.status not in CREDITABLE:
        messages.error(request, f"An invoice that is {invoice.status} has nothing to give back.")
        return HttpResponseRedirect(its_page)
    tried: CreditNoteView | None = None
    with tenant_scope(invoice.tenant_id):
        form = NoteForm(
            request.POST if request.method == "POST" else None,
            invoice=invoice,
            lines=list(InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")),
            left=lines_left(invoice.id),
        )
        expected = request.POST.get("total_minor")
        if expected is not None and (made := _known(invoice, form, expected)) is not None:
            return _made(request, invoice, made)
        if request.method == "POST" and "change" not in request.POST and form.is_valid():
            tried, is_made = _give(invoice, form, expected)
            if tried is not None and is_made:
                return _made(request, invoice, tried)
            if tried is not None and expected is not None:
                form.add_error(None, "What is left has changed since: look again.")
    context = {
        **site.each_context(request),
        "title": f"Give back of {invoice.number}",
        "form": form,
        "invoice": invoice,
        "invoice_total": amounts.minor(invoice.total_minor, invoice.currency),
        "tried": tried and _facts(tried),
        "back_url": its_page,
    }
    return TemplateResponse(request, "console/give_back.html", context)


def _known(invoice: Invoice, form: NoteForm, expected: str) -> CreditNoteView | None:
    """The note that this form made already: what it names may have nothing left since then."""
    form.full_clean()
    named = form.cleaned_data.get("named", "")
    known = CreditNote.objects.filter(invoice_id=invoice.id, idempotency_key=named).first()
    if known is None or str(known.total_minor) != expected:
        return None
    return credit_note(known.id)


def _give(
    invoice: Invoice, form: NoteForm, expected: str | None
) -> tuple[CreditNoteView | None, bool]:
    """The note, and whether it stays: where nothing or something else was expected it is taken
    back. None where it was refused; the form says why."""
    said = form.cleaned_data
    try:
        with transaction.atomic():
            made = create_credit_note(
                invoice.id,
                reason=said["reason"],
                memo=said["memo"],
                effect=said["effect"],
                idempotency_key=said["named"],
                lines=form.asked,
            )
            view = credit_note(made.id)
            is_meant = expected == str(made.total_minor)
            transaction.set_rollback(not is_meant)
    except CallerError as refused:
        form.refuse(refused)
        return None, False
    return view, is_meant


def _made(request: HttpRequest, invoice: Invoice, note: CreditNoteView) -> HttpResponse:
    """Tells it, and remembers once who did it, however often the form was sent."""
    total = amounts.minor(note.total_minor, note.currency)
    row = CreditNote.objects.get(id=note.id)
    kind = ContentType.objects.get_for_model(CreditNote)
    if not LogEntry.objects.filter(content_type=kind, object_id=str(note.id)).exists():
        site.get_model_admin(CreditNote).log_addition(request, row, f"gave back {total}")
        its = f"credit note {note.number} of {total}"
        site.get_model_admin(Invoice).note(request, invoice, its)
    messages.success(request, f"{note.number} gives back {total} of {invoice.number}")
    return HttpResponseRedirect(reverse("console:invoicing_creditnote_change", args=[note.id]))


def _facts(note: CreditNoteView) -> dict[str, Any]:
    """What a note would be, as the page that asks for a confirmation shows it."""

    def amount(amount_minor: int) -> str:
        return amounts.minor(amount_minor, note.currency)

    rows = [
        [
            f"{line.position}: {line.description}",
            amounts.NOTHING if line.quantity is None else decimal_to_text(line.quantity),
            amount(line.amount_minor),
        ]
        for line in note.lines
    ]
    for tax in note.taxes:
        inside = " (in the amounts)" if tax.mode == "inclusive" else ""
        rows.append([f"{tax.label}{inside}", amounts.NOTHING, amount(tax.amount_minor)])
    return {
        "table": {"headers": ["Line", "Quantity", "Amount"], "rows": rows},
        "total": amount(note.total_minor),
        "total_minor": note.total_minor,
        "effect": dict(CreditNote.Effect.choices)[note.effect].lower(),
        "reason": dict(CreditNote.Reason.choices)[note.reason].lower(),
    }


def _legs(object_id: str) -> list[list[str]]:
    try:
        note_id = UUID(object_id)
    except ValueError:
        raise Http404 from None
    entries = LedgerEntry.objects.filter(
        kind__startswith="credit_note.", source_id=str(note_id)
    ).order_by("created_at", "id")
    rows = []
    for entry in entries:
        address = reverse("console:ledger_ledgerentry_change", args=[entry.pk])
        link = format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>',
            address,
            entry.kind,
        )
        for leg in LedgerLeg.objects.filter(entry=entry).order_by("position"):
            side = amounts.minor(abs(leg.amount_minor), leg.currency)
            debit, credit = (side, "") if leg.amount_minor > 0 else ("", side)
            rows.append([link, leg.account, debit, credit])
    return rows
