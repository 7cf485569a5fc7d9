"""An invoice or a credit note with everything that is said on it, as values.

Needs the tenant's door. Both parties are those frozen with the number; a draft, and an invoice from
before they were kept, names them as they are now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.invoicing.models import CreditNote, CreditNoteTax, Invoice, InvoiceTax
from billing.invoicing.parties import TAX_ID_LABELS, buyer_now, seller_now
from billing.invoicing.queries import InvoiceView, LineView, TaxView, invoice_with_lines

CREDIT_NOTES_MAX = 200


@dataclass(frozen=True, slots=True)
class Party:
    """Who a document is from or for; an address by lines, tax ids as they are printed."""

    name: str
    address: tuple[str, ...] = ()
    country: str = ""
    tax_ids: tuple[str, ...] = ()
    email: str = ""
    purchase_order: str = ""


@dataclass(frozen=True, slots=True)
class CreditedLine:
    """What of an invoice line goes back."""

    line_id: UUID
    position: int
    description: str
    quantity: Decimal | None
    amount_minor: int


@dataclass(frozen=True, slots=True)
class CreditNoteView:
    """A credit note; lines and taxes only where they were asked for."""

    id: UUID
    number: str
    invoice_id: UUID
    invoice_number: str
    reason: str
    memo: str
    effect: str
    currency: str
    subtotal_minor: int
    tax_exclusive_minor: int
    tax_inclusive_minor: int
    total_minor: int
    created_at: datetime
    lines: tuple[CreditedLine, ...] = ()
    taxes: tuple[TaxView, ...] = ()
    buyer: Party = Party("")
    seller: Party = Party("")


@dataclass(frozen=True, slots=True)
class InvoiceDocument:
    """An invoice as it is printed. `due_minor` is what it still asks for."""

    invoice: InvoiceView
    lines: tuple[LineView, ...]
    subtotal_minor: int
    tax_exclusive_minor: int
    tax_inclusive_minor: int
    taxes: tuple[TaxView, ...]
    tax_note: str
    buyer: Party
    seller: Party
    credit_notes: tuple[CreditNoteView, ...]
    due_minor: int

    @property
    def credited_minor(self) -> int:
        return sum(note.total_minor for note in self.credit_notes)


def invoice_document(invoice_id: UUID) -> InvoiceDocument | None:
    """Everything an invoice says; None if the tenant has no such invoice."""
    view = invoice_with_lines(invoice_id)
    if view is None:
        return None
    row = Invoice.objects.get(id=invoice_id)
    notes = credit_notes(invoice_id)
    return InvoiceDocument(
        invoice=view,
        lines=view.lines,
        subtotal_minor=row.subtotal_minor,
        tax_exclusive_minor=row.tax_exclusive_minor,
        tax_inclusive_minor=row.tax_inclusive_minor,
        taxes=tuple(_tax(tax, tax.amount_minor) for tax in _taxes(invoice_id)),
        tax_note=row.tax_note,
        buyer=_buyer(row.buyer or buyer_now()),
        seller=_seller(row.seller or seller_now()),
        credit_notes=tuple(notes),
        due_minor=_due(row, notes),
    )


def credit_notes(invoice_id: UUID | None = None) -> list[CreditNoteView]:
    """Of one invoice in the order they were made, or the tenant's newest; without their lines."""
    rows = CreditNote.objects.select_related("invoice")
    if invoice_id is None:
        return [_note(row) for row in rows.order_by("-created_at", "-id")[:CREDIT_NOTES_MAX]]
    return [_note(row) for row in rows.filter(invoice_id=invoice_id).order_by("created_at", "id")]


def credit_note(note_id: UUID) -> CreditNoteView | None:
    """One with its lines and taxes; None if the tenant has no such note."""
    row = CreditNote.objects.filter(id=note_id).select_related("invoice").first()
    if row is None:
        return None
    lines = tuple(
        CreditedLine(
            each.line_id,
            each.line.position,
            each.line.description,
            each.quantity,
            each.amount_minor,
        )
        for each in row.lines.select_related("line").order_by("position")
    )
    taxes = CreditNoteTax.objects.filter(note_id=row.id).select_related("tax")
    return _note(row, lines, tuple(_tax(each.tax, each.amount_minor) for each in taxes))


def _due(row: Invoice, notes: list[CreditNoteView]) -> int:
    if row.status in (Invoice.Status.PAID, Invoice.Status.VOID):
        return 0
    lowered = sum(note.total_minor for note in notes if note.effect == "lowers_due")
    return row.total_minor - lowered


def _taxes(invoice_id: UUID) -> list[InvoiceTax]:
    return list(InvoiceTax.objects.filter(invoice_id=invoice_id).order_by("position"))


def _tax(row: InvoiceTax, amount_minor: int) -> TaxView:
    return TaxView(
        id=row.id,
        name=row.name,
        label=str(row),
        percentage=f"{row.percentage.normalize():f}",
        mode=row.mode,
        country=row.country,
        taxable_minor=row.taxable_minor,
        amount_minor=amount_minor,
        note=row.note,
    )


def _note(
    row: CreditNote, lines: tuple[CreditedLine, ...] = (), taxes: tuple[TaxView, ...] = ()
) -> CreditNoteView:
    return CreditNoteView(
        id=row.id,
        number=row.number,
        invoice_id=row.invoice_id,
        invoice_number=row.invoice.number or "",
        reason=row.reason,
        memo=row.memo,
        effect=row.effect,
        currency=row.currency,
        subtotal_minor=row.subtotal_minor,
        tax_exclusive_minor=row.tax_exclusive_minor,
        tax_inclusive_minor=row.tax_inclusive_minor,
        total_minor=row.total_minor,
        created_at=row.created_at,
        lines=lines,
        taxes=taxes,
        buyer=_buyer(row.buyer or buyer_now()),
        seller=_seller(row.seller or seller_now()),
    )


def _buyer(frozen: Mapping[str, Any]) -> Party:
    return Party(
        name=frozen["name"],
        address=tuple(frozen["address"].splitlines()),
        country=frozen["country"],
        tax_ids=tuple(
            f"{TAX_ID_LABELS.get(each['type'], 'Tax id')} {each['value']}"
            for each in frozen["tax_ids"]
        ),
        purchase_order=frozen["purchase_order"],
    )


def _seller(frozen: Mapping[str, str]) -> Party:
    return Party(
        name=frozen["name"],
        address=tuple(frozen["address"].splitlines()),
        tax_ids=(f"Tax id {frozen['tax_id']}",) if frozen["tax_id"] else (),
        email=frozen["email"],
    )
