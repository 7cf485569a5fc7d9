"""Give back of a finalised invoice: the only writer of credit notes.

Guarantees: a note is of lines, never more than each has left (`credited`), and carries the tax of
what it gives back; it gets its number in the transaction that makes it, from a series of its own
without gaps; the same idempotency key makes one note, with other content it is refused.

What it does: of an open invoice it lowers what is due; of a paid one it is money to be refunded, or
kept as purchased credit. What the organisation's credit paid (a line below zero) is a line like the
others: named in a note, it gives the credit back. A note never gives back more than the invoice
asked for. Where credit paid for everything its total is zero, and only credit comes back.

The payment provider hears of it afterwards: an open invoice is collected again, and the note is
issued there before anybody is charged. Total, lines and number of the invoice stay what they are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction
from django.db.models import Sum

from billing.credits.grant import grant
from billing.credits.restore import restore_credit
from billing.credits.terms import GrantTerms
from billing.invoicing.account import whole
from billing.invoicing.credit_back import given_back_of
from billing.invoicing.credit_entries import corrections, entries_of_note
from billing.invoicing.credited import LineLeft, TaxedLine, by_amount, by_quantity, tax_part
from billing.invoicing.models import (
    CreditNote,
    CreditNoteLine,
    CreditNoteSeries,
    CreditNoteTax,
    Invoice,
    InvoiceLine,
    InvoiceSeries,
    InvoiceTax,
)
from billing.invoicing.taxation import taxes_of
from billing.ledger.post import post_entry
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text

KEY_CHARS_MAX = 100
MEMO_CHARS_MAX = 400
_CREDITABLE = (Invoice.Status.OPEN, Invoice.Status.PAID)
Effect = CreditNote.Effect


@dataclass(frozen=True, slots=True)
class LineAsked:
    """What to give back of one line: an amount, or a quantity of it; with neither, what is left."""

    line_id: UUID
    amount_minor: int | None = None
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Given:
    line: InvoiceLine
    left: LineLeft
    quantity: Decimal | None
    amount_minor: int


def create_credit_note(
    invoice_id: UUID,
    *,
    reason: str,
    idempotency_key: str,
    lines: Sequence[LineAsked] | None = None,
    memo: str = "",
    effect: str = "",
) -> CreditNote:
    """Give back these lines; without any, all that is left of the invoice. Needs the door.

    Raises `CallerError`: `invoice_not_found`, `invoice_not_creditable`, `line_not_found`,
    `credit_exceeds_line`, `credit_*_invalid`, `nothing_to_credit`, `idempotency_conflict`.
    """
    _check_asked(reason, idempotency_key, memo)
    with transaction.atomic():
        # One note of an invoice at a time, so that what is left of a line is known.
        invoice = Invoice.objects.select_for_update().filter(id=invoice_id).first()
        if invoice is None:
            raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
        digest = _digest(invoice_id, reason, memo, effect, lines)
        known = CreditNote.objects.filter(idempotency_key=idempotency_key).first()
        if known is not None:
            return _same(known, digest)
        effect = _effect(invoice, effect)
        given = _given(invoice, lines)
        return _write(invoice, given, reason, memo, effect, idempotency_key, digest)


def credited_minor(invoice_ids: Sequence[UUID], effect: str | None = None) -> dict[UUID, int]:
    """What was given back of invoices, tax on top included. Needs the door."""
    notes = CreditNote.objects.filter(invoice_id__in=invoice_ids)
    if effect is not None:
        notes = notes.filter(effect=effect)
    rows = notes.order_by().values_list("invoice_id").annotate(total=Sum("total_minor"))
    return dict(rows)


def lines_left(invoice_id: UUID) -> dict[UUID, LineLeft]:
    """What each line of an invoice has left to give back."""
    given = {
        row["line_id"]: (row["amount"], row["units"] or Decimal())
        for row in CreditNoteLine.objects.filter(note__invoice_id=invoice_id)
        .order_by()
        .values("line_id")
        .annotate(amount=Sum("amount_minor"), units=Sum("quantity"))
    }
    lines = list(InvoiceLine.objects.filter(invoice_id=invoice_id).order_by("position"))
    left = {
        line.id: LineLeft(
            line.amount_minor, Decimal(whole(line.quantity)), *given.get(line.id, (0, Decimal()))
        )
        for line in lines
    }
    returned_minor = given_back_of([invoice_id]).get(invoice_id, 0)
    for line in reversed(lines):  # as it came back: what was drawn last first
        if _is_drawn(line):
            part = min(returned_minor, -left[line.id].left_minor)
            left[line.id] = replace(left[line.id], returned_minor=-part)
            returned_minor -= part
    return left


def _write(
    invoice: Invoice,
    given: list[_Given],
    reason: str,
    memo: str,
    effect: str,
    idempotency_key: str,
    digest: str,
) -> CreditNote:
    taxes = _taxes(invoice, given)
    on_top = sum(amount for tax, amount in taxes.items() if tax.mode == "exclusive")
    subtotal = sum(each.amount_minor for each in given)
    gives_credit = any(_is_drawn(each.line) for each in given)
    if subtotal + on_top < 0 or (subtotal + on_top == 0 and not gives_credit):
        raise CallerError("nothing_to_credit", "These lines give nothing back.", status=409)
    left = invoice.total_minor - credited_minor([invoice.id]).get(invoice.id, 0)
    if subtotal + on_top > left:
        raise CallerError(
            "credit_exceeds_invoice",
            f"Of this invoice {minor_to_text(left, invoice.currency)} {invoice.currency} is left:"
            " name the lines of credit too, and of the others what was not corrected since.",
            status=409,
        )
    note: CreditNote = CreditNote.objects.create(
        tenant_id=invoice.tenant_id,
        invoice=invoice,
        number=_next_number(invoice.tenant_id),
        reason=reason,
        memo=memo,
        effect=effect,
        currency=invoice.currency,
        subtotal_minor=subtotal,
        tax_exclusive_minor=on_top,
        tax_inclusive_minor=sum(taxes.values()) - on_top,
        total_minor=subtotal + on_top,
        idempotency_key=idempotency_key,
        request_digest=digest,
        buyer=invoice.buyer,
        seller=invoice.seller,
    )
    for position, each in enumerate(given, start=1):
        CreditNoteLine.objects.create(
            tenant_id=invoice.tenant_id,
            note=note,
            position=position,
            line=each.line,
            quantity=each.quantity,
            amount_minor=each.amount_minor,
        )
    CreditNoteTax.objects.bulk_create(
        CreditNoteTax(tenant_id=invoice.tenant_id, note=note, tax=tax, amount_minor=amount)
        for tax, amount in taxes.items()
    )
    if effect == Effect.LOWERS_DUE and note.total_minor:
        _collect_less(invoice)
    _move_money(note)
    return note


def _move_money(note: CreditNote) -> None:
    """Credit's turn comes before the ledger's."""
    (corrected,) = corrections(CreditNote.objects.filter(id=note.id))
    if corrected.restored_minor:
        restore_credit(
            tenant_id=note.tenant_id,
            invoice_id=note.invoice_id,
            source_id=note.id,
            amount_minor=corrected.restored_minor,
        )
    if note.effect == Effect.BALANCE and note.total_minor:
        grant(
            tenant_id=note.tenant_id,
            terms=GrantTerms(
                kind="purchased",
                currency=note.currency,
                amount_minor=note.total_minor,
                reason=f"Credit note {note.number}",
            ),
            idempotency_key=f"credit-note:{note.id}",
            created_by="credit note",
        )
    for entry in entries_of_note(corrected):
        post_entry(entry)


def _given(invoice: Invoice, asked: Sequence[LineAsked] | None) -> list[_Given]:
    rows = {line.id: line for line in InvoiceLine.objects.filter(invoice_id=invoice.id)}
    left = lines_left(invoice.id)
    if asked is None:
        asked = [LineAsked(line_id) for line_id, each in left.items() if each.left_minor]
    if len({each.line_id for each in asked}) != len(asked):
        raise CallerError("line_named_twice", "Name each line once.", field="lines")
    if not asked:
        raise CallerError("nothing_to_credit", "Nothing of this invoice is left.", status=409)
    given = []
    for n, each in enumerate(asked):
        line = rows.get(each.line_id)
        if line is None:
            raise CallerError(
                "line_not_found",
                f"This invoice has no line {each.line_id}.",
                status=404,
                field=f"lines[{n}].line",
            )
        amount = _amount(left[line.id], each, invoice.currency, f"lines[{n}]")
        given.append(_Given(line, left[line.id], each.quantity, amount))
    return given


def _amount(left: LineLeft, asked: LineAsked, currency: str, field: str) -> int:
    if asked.amount_minor is not None and asked.quantity is not None:
        raise CallerError(
            "credit_amount_invalid", "An amount or a quantity, not both.", field=field
        )
    if asked.quantity is not None:
        return by_quantity(left, asked.quantity, f"{field}.quantity")
    amount = left.left_minor if asked.amount_minor is None else asked.amount_minor
    return by_amount(left, amount, currency, f"{field}.amount")


def _taxes(invoice: Invoice, given: list[_Given]) -> dict[InvoiceTax, int]:
    lines = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
    ids = dict(lines.values_list("position", "id"))
    left = lines_left(invoice.id)
    gives = {each.line.id: each.amount_minor for each in given}
    noted = dict(
        CreditNoteTax.objects.filter(note__invoice_id=invoice.id)
        .order_by()
        .values_list("tax_id")
        .annotate(sum=Sum("amount_minor"))
    )
    amounts = {position: left[line_id].amount_minor for position, line_id in ids.items()}
    parts: dict[InvoiceTax, int] = {}
    for tax, taxed in taxes_of(invoice.id, amounts):
        shares = [
            TaxedLine(taxed.by_line[position], left[line_id], gives.get(line_id, 0))
            for position, line_id in ids.items()
        ]
        parts[tax] = tax_part(tax.amount_minor, noted.get(tax.id, 0), shares)
    return parts


def _is_drawn(line: InvoiceLine) -> bool:
    return line.kind == InvoiceLine.Kind.CREDIT and line.amount_minor < 0


def _effect(invoice: Invoice, asked: str) -> str:
    if invoice.status not in _CREDITABLE:
        raise CallerError(
            "invoice_not_creditable",
            f"An invoice that is {invoice.status} has nothing to give back.",
            status=409,
        )
    if invoice.status != Invoice.Status.PAID:
        if asked not in ("", Effect.LOWERS_DUE):
            raise CallerError(
                "credit_effect_invalid",
                "This invoice is not paid: a credit note lowers what is due.",
                field="effect",
            )
        return Effect.LOWERS_DUE
    if asked not in ("", Effect.REFUND, Effect.BALANCE):
        raise CallerError(
            "credit_effect_invalid",
            "Of a paid invoice a credit note is to refund, or kept as balance.",
            field="effect",
        )
    return asked or Effect.REFUND


def _check_asked(reason: str, idempotency_key: str, memo: str) -> None:
    if reason not in CreditNote.Reason.values:
        known = ", ".join(CreditNote.Reason.values)
        raise CallerError("credit_reason_invalid", f"A reason is one of {known}.", field="reason")
    if not idempotency_key.strip() or len(idempotency_key) > KEY_CHARS_MAX:
        raise CallerError(
            "idempotency_key_invalid",
            f"Name what you ask by a key of 1 to {KEY_CHARS_MAX} characters: asked again, it is"
            " done once.",
            field="idempotency_key",
        )
    if len(memo) > MEMO_CHARS_MAX or "\x00" in memo + idempotency_key:
        raise CallerError(
            "credit_memo_invalid", f"At most {MEMO_CHARS_MAX} characters.", field="memo"
        )


def _digest(
    invoice_id: UUID, reason: str, memo: str, effect: str, lines: Sequence[LineAsked] | None
) -> str:
    asked: list[Any] | None = None
    if lines is not None:
        asked = [
            [
                str(each.line_id),
                each.amount_minor,
                None if each.quantity is None else f"{each.quantity.normalize():f}",
            ]
            for each in lines
        ]
    text = msgspec.json.encode([str(invoice_id), reason, memo, effect, asked])
    return hashlib.sha256(text).hexdigest()


def _same(known: CreditNote, digest: str) -> CreditNote:
    if known.request_digest != digest:
        raise CallerError(
            "idempotency_conflict",
            f"This key made credit note {known.number} from other content.",
            status=409,
            field="idempotency_key",
        )
    return known


def _next_number(tenant_id: UUID) -> str:
    series = CreditNoteSeries.objects.select_for_update().first() or _begin_series(tenant_id)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    return f"{series.prefix}-{series.last_number:06d}"


def _begin_series(tenant_id: UUID) -> CreditNoteSeries:
    """Beside the invoices' prefix, which is unique and fixed."""
    prefix = f"{InvoiceSeries.objects.get().prefix}-CN"
    try:
        with transaction.atomic():
            CreditNoteSeries.objects.create(tenant_id=tenant_id, prefix=prefix)
    except IntegrityError:
        pass  # begun at the same time, for another invoice
    series: CreditNoteSeries = CreditNoteSeries.objects.select_for_update().get()
    return series


def _collect_less(invoice: Invoice) -> None:
    """Whoever collects must hear of the note before the customer is charged or pays."""
    if invoice.collection_state == Invoice.Collection.AWAITING_PAYMENT:
        invoice.collection_state = Invoice.Collection.PENDING
        invoice.save(update_fields=["collection_state"])
