"""An invoice on paper: who, what, how much, how it came about, and where payment stands.

Its bytes are a function of the document and the shares given: of the same invoice in the same state
they are the same. Bounded: `LINES_MAX` lines, `SHARES_MAX` rows of the appendix; what is beyond is
counted and named, and is in the CSV.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reportlab.platypus import CondPageBreak, KeepTogether, PageBreak, Spacer  # type: ignore[import-untyped]

from billing.invoicing.documents import InvoiceDocument
from billing.invoicing.pdf import sheet
from billing.invoicing.pdf.sheet import (
    BODY,
    FIGURE,
    HEAD,
    HEAD_FIGURE,
    SECTION,
    SMALL,
    STRONG,
    TITLE,
    WIDTH,
    text,
)
from billing.invoicing.queries import InvoiceView, LineView, TaxView
from meterplane.kernel import amounts

LINES_MAX = 1_000
SHARES_MAX = 2_000
_STATES = {
    "draft": "Draft: not issued yet",
    "finalising": "Finalising: not issued yet",
    "void": "Void: nothing is due",
    "uncollectible": "Written off",
}


@dataclass(frozen=True, slots=True)
class Share:
    """What one key of a project adds to one line."""

    position: int
    project: str
    key: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Appendix:
    """The usage behind the lines; `note` where it cannot be told apart."""

    shares: Sequence[Share]
    left_out: int = 0
    note: str = ""


def invoice_pdf(
    document: InvoiceDocument, appendix: Appendix, payment: Sequence[str] = ()
) -> bytes:
    """The whole document; `payment` says how to pay, by lines."""
    invoice = document.invoice
    name = invoice.number or "Draft"
    story = [*_head(document), *_lines(document), *_sums(document)]
    story += [*_to_pay(payment), *_notes(document)]
    story += _appendix(document, appendix)
    story += sheet.boxes(
        *sheet.said_of(document.seller),
        *sheet.said_of(document.buyer),
        *(f"{line.display_name}{line.description}" for line in document.lines[:LINES_MAX]),
        *(note.memo for note in document.credit_notes),
        *(f"{share.project}{share.key}" for share in appendix.shares),
    )
    footer = f"{document.seller.name} · Invoice {name}"
    return sheet.pdf_bytes(f"Invoice {name}", document.seller.name, story, footer)


def _head(document: InvoiceDocument) -> list[Any]:
    invoice, buyer = document.invoice, document.buyer
    facts = [
        ("Number", invoice.number or "Draft"),
        ("Issued", _day(invoice.finalised_at) if invoice.finalised_at else "Not yet"),
        ("Period", f"{_day(invoice.period_start)} to {_day(invoice.period_end)}"),
        ("", f"UTC, {_until(invoice)}"),
        ("Purchase order", buyer.purchase_order),
        ("Status", _state(document)),
    ]
    third = WIDTH // 3
    shown = [(label, value) for label, value in facts if value]
    block = [
        sheet.columns(
            text(label, HEAD),
            text(value, SMALL if not label else BODY),
            widths=(76, third - 26),
        )
        for label, value in shown
    ]
    return [
        text("Interim invoice" if invoice.kind == "interim" else "Invoice", TITLE),
        Spacer(1, 18),
        sheet.columns(
            sheet.party("From", document.seller),
            sheet.party("Billed to", buyer),
            block,
            widths=(third - 30, third - 20, third + 50),
        ),
        Spacer(1, 22),
    ]


def _lines(document: InvoiceDocument) -> list[Any]:
    currency = document.invoice.currency
    decimals = amounts.decimals_needed(
        [line.unit_price_pico for line in document.lines if line.unit_price_pico is not None],
        amounts.PICO_DIGITS,
    )
    widths = (24, WIDTH - 24 - 85 - 95 - 80, 85, 95, 80)
    rows: list[list[Any]] = [
        [
            text("#", HEAD),
            text("Description", HEAD),
            text("Quantity", HEAD_FIGURE),
            text("Unit price", HEAD_FIGURE),
            text("Amount", HEAD_FIGURE),
        ]
    ]
    for position, line in enumerate(document.lines[:LINES_MAX], start=1):
        rows.append(
            [
                text(str(position), SMALL),
                _described(line),
                text(f"{line.quantity:,}" if line.meter and line.quantity else "", FIGURE),
                text(_unit_price(line, currency, decimals), FIGURE),
                text(amounts.minor(line.amount_minor, currency), FIGURE),
            ]
        )
    story: list[Any] = [sheet.listing(rows, widths)]
    if (left := len(document.lines) - LINES_MAX) > 0:
        story.append(text(f"{left:,} more lines are in the CSV of this invoice.", SMALL))
    return story


def _described(line: LineView) -> list[Any]:
    what = (line.meter or line.kind).replace("_", " ").capitalize()
    if line.kind == "interim":
        what = "Already invoiced"
    tier = f" · {line.service_tier}" if line.service_tier != "standard" else ""
    name = _named(line)
    title = f"{name} · {what}{tier}" if name and name != what else what
    explanation = line.description.removeprefix(f"{name}: ")
    return [text(title, STRONG), text(explanation, SMALL)]


def _named(line: LineView) -> str:
    return line.model if line.is_plain else line.display_name or line.model


def _unit_price(line: LineView, currency: str, decimals: int) -> str:
    if line.unit_price_pico is None:
        return str(line.price_model["type"]).capitalize() if line.price_model else ""
    return str(amounts.exact(line.unit_price_pico, amounts.PICO_DIGITS, currency, decimals))


def _sums(document: InvoiceDocument) -> list[Any]:
    currency = document.invoice.currency

    def shown(amount_minor: int) -> str:
        return amounts.minor(amount_minor, currency)

    rows = [("Subtotal", shown(document.subtotal_minor), False)]
    on_top = [tax for tax in document.taxes if tax.mode == "exclusive"]
    rows += [(_taxed(tax, currency), shown(tax.amount_minor), False) for tax in on_top]
    rows.append((f"Total {currency}", shown(document.invoice.total_minor), True))
    contained = [tax for tax in document.taxes if tax.mode == "inclusive"]
    rows += [(f"Includes {_taxed(t, currency)}", shown(t.amount_minor), False) for t in contained]
    for note in document.credit_notes:
        rows.append((f"Credit note {note.number}", shown(-note.total_minor), False))
    if document.invoice.number:
        rows.append(("Amount due", shown(document.due_minor), True))
    return [Spacer(1, 10), KeepTogether(sheet.totals(rows, WIDTH // 2)), Spacer(1, 14)]


def _to_pay(payment: Sequence[str]) -> list[Any]:
    if not payment:
        return []
    block = [text("Payment", STRONG), *(text(line, BODY) for line in payment)]
    return [KeepTogether(block), Spacer(1, 14)]


def _notes(document: InvoiceDocument) -> list[Any]:
    currency = document.invoice.currency
    notes = [document.tax_note, f"Payment: {_state(document)}."]
    notes.append(
        "Each line is its quantity at its price, rounded once to the smallest unit of the currency"
        " (halves away from zero); lines and taxes add up to the total."
    )
    for note in document.credit_notes:
        told = f"{amounts.minor(note.total_minor, currency)} on {_day(note.created_at)}"
        notes.append(f"Credit note {note.number}: {told}. {note.memo}".strip())
    story: list[Any] = []
    for words in notes:
        if words:
            story += [text(words, SMALL), Spacer(1, 4)]
    return story


def _appendix(document: InvoiceDocument, appendix: Appendix) -> list[Any]:
    if not appendix.shares and not appendix.note:
        return []
    story: list[Any] = [PageBreak(), text("Usage by project and key", SECTION), Spacer(1, 4)]
    story.append(
        text("What each API key adds to a line; the parts add up to the line's quantity.", SMALL)
    )
    if appendix.note:
        story += [Spacer(1, 6), text(appendix.note, BODY)]
    for position, line in enumerate(document.lines, start=1):
        shares = [share for share in appendix.shares if share.position == position]
        if shares:
            story += _shares_of(position, line, shares)
    if appendix.left_out:
        left = f"{appendix.left_out:,} more rows are in the usage CSV of this invoice."
        story += [Spacer(1, 6), text(left, SMALL)]
    return story


def _shares_of(position: int, line: LineView, shares: list[Share]) -> list[Any]:
    widths = (WIDTH * 2 // 5, WIDTH * 2 // 5, WIDTH - 2 * (WIDTH * 2 // 5))
    rows: list[list[Any]] = [
        [text("Project", HEAD), text("API key", HEAD), text("Quantity", HEAD_FIGURE)]
    ]
    rows += [
        [text(share.project), text(share.key), text(f"{share.quantity:,}", FIGURE)]
        for share in shares
    ]
    what = line.meter.replace("_", " ")
    late = f", used from {_day(line.period_start)} until {_day(line.period_end)}"
    used = f"{line.quantity:,} {what}{late if line.is_late else ''}"
    title = f"{position}. {_named(line)}: {used}"
    return [
        Spacer(1, 12),
        CondPageBreak(80),
        text(title, STRONG),
        Spacer(1, 2),
        sheet.listing(rows, widths),
    ]


def _state(document: InvoiceDocument) -> str:
    invoice = document.invoice
    if invoice.status == "paid" and invoice.paid_at:
        return f"Paid on {_day(invoice.paid_at)}"
    if invoice.status == "open":
        return f"Open: {amounts.minor(document.due_minor, invoice.currency)} is due"
    return _STATES.get(invoice.status, invoice.status.capitalize())


def _taxed(tax: TaxView, currency: str) -> str:
    country = f" ({tax.country})" if tax.country else ""
    return f"{tax.label}{country} on {amounts.minor(tax.taxable_minor, currency)}"


def _until(invoice: InvoiceView) -> str:
    """An interim invoice ends within a day, and so it says when."""
    return f"until {invoice.period_end:%H:%M}" if invoice.kind == "interim" else "end excluded"


def _day(instant: Any) -> str:
    return f"{instant.day} {instant:%b %Y}"
