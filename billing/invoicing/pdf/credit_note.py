"""A credit note on paper. Its bytes are a function of the note, which never changes."""

from typing import Any

from reportlab.platypus import Spacer  # type: ignore[import-untyped]

from billing.invoicing.documents import CreditNoteView
from billing.invoicing.pdf import sheet
from billing.invoicing.pdf.sheet import (
    BODY,
    FIGURE,
    HEAD,
    HEAD_FIGURE,
    SMALL,
    TITLE,
    WIDTH,
    text,
)
from meterplane.kernel import amounts

EFFECTS = {
    "lowers_due": "It lowers what is due of the invoice.",
    "refund": "It is paid back.",
    "balance": "It is kept as purchased credit for the next invoices.",
}


def credit_note_pdf(note: CreditNoteView) -> bytes:
    """The whole document."""
    third = WIDTH // 3
    facts = [
        ("Number", note.number),
        ("Issued", f"{note.created_at.day} {note.created_at:%b %Y}"),
        ("Of invoice", note.invoice_number),
        ("Purchase order", note.buyer.purchase_order),
        ("Reason", note.reason.replace("_", " ").capitalize()),
    ]
    block = [
        sheet.columns(text(label, HEAD), text(value), widths=(76, third - 26))
        for label, value in facts
        if value
    ]
    story: list[Any] = [
        text("Credit note", TITLE),
        Spacer(1, 18),
        sheet.columns(
            sheet.party("From", note.seller),
            sheet.party("Credited to", note.buyer),
            block,
            widths=(third - 30, third - 20, third + 50),
        ),
        Spacer(1, 22),
        *_lines(note),
        Spacer(1, 10),
        _sums(note),
        Spacer(1, 14),
    ]
    for words in (note.memo, EFFECTS[note.effect]):
        if words:
            story += [text(words, SMALL), Spacer(1, 4)]
    described = [line.description for line in note.lines]
    parties = [*sheet.said_of(note.seller), *sheet.said_of(note.buyer)]
    story += sheet.boxes(*parties, *described, note.memo)
    footer = f"{note.seller.name} · Credit note {note.number}"
    return sheet.pdf_bytes(f"Credit note {note.number}", note.seller.name, story, footer)


def _lines(note: CreditNoteView) -> list[Any]:
    by_quantity = any(line.quantity is not None for line in note.lines)
    rows: list[list[Any]] = [
        [
            text("Line", HEAD),
            text("Description", HEAD),
            text("Quantity" if by_quantity else "", HEAD_FIGURE),
            text("Credited", HEAD_FIGURE),
        ]
    ]
    for line in note.lines:
        quantity = f"{line.quantity.normalize():,f}" if line.quantity is not None else ""
        rows.append(
            [
                text(str(line.position), SMALL),
                text(line.description, BODY),
                text(quantity, FIGURE),
                text(amounts.minor(line.amount_minor, note.currency), FIGURE),
            ]
        )
    return [sheet.listing(rows, (30, WIDTH - 30 - 90 - 90, 90, 90))]


def _sums(note: CreditNoteView) -> Any:
    def shown(amount_minor: int) -> str:
        return amounts.minor(amount_minor, note.currency)

    rows = [("Subtotal", shown(note.subtotal_minor), False)]
    for tax in note.taxes:
        if tax.mode == "exclusive":
            rows.append((tax.label, shown(tax.amount_minor), False))
    rows.append((f"Total credited {note.currency}", shown(note.total_minor), True))
    for tax in note.taxes:
        if tax.mode == "inclusive":
            rows.append((f"Includes {tax.label}", shown(tax.amount_minor), False))
    return sheet.totals(rows, WIDTH // 2)
