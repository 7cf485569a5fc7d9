"""Invoices without a provider: issued by us, paid by bank transfer, settled by an operator.

    open                 the invoice has its number and its due date; nobody is called
    payment recorded     payments +, receivable -, and what is beyond what is due is the customer's
    covered              the invoice is paid, with all that arrived
    payment taken back   the opposite of it; an invoice that is not covered any more is owed again

Guarantees: a payment counts once, by its reference and invoice, whoever sends it how often, and is
taken back once. Rows are never changed. After each of them the ledger, the invoice and the tenant's
standing are what the rows together call for, in one transaction.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.advance import News, advance, reopen
from billing.invoicing.models import Invoice
from billing.invoicing.record import due_minor
from billing.ledger.entry import AMOUNT_MINOR_MAX
from billing.ledger.post import post_entry
from billing.payments.carry import uncarry
from billing.payments.judge import judge, owed_again
from billing.payments.mirror import park
from billing.payments.models import Method, RecordedPayment
from billing.payments.recorded import entry_of
from billing.payments.terms import fix_terms, terms_of
from billing.payments.terms_models import REASON_CHARS_MAX, REFERENCE_CHARS_MAX
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope

_UNISSUED = (Invoice.Status.DRAFT, Invoice.Status.FINALISING)
_PAYABLE = (Invoice.Status.OPEN, Invoice.Status.UNCOLLECTIBLE)
IN_FAVOUR = "The total is in the customer's favour: there is nothing to transfer to us. Pay it out."
TAXED_THERE = (
    "Stripe computes the taxes of this invoice, and never hears of one that is paid by bank"
    " transfer. Have it sent online instead (collection terms send_invoice), then resume"
    " collecting; for later invoices, tax the organisation at our own rates."
)
TAKEN_BACK = "A payment was taken back: it is owed again."


@dataclass(frozen=True, slots=True)
class Recorded:
    """A payment as it stands; `is_new` is False for one that was recorded before."""

    id: UUID
    amount_minor: int
    left_minor: int
    is_new: bool


def is_by_hand(tenant_id: UUID, invoice_id: UUID) -> bool:
    """Whether an invoice is one that the provider never hears of."""
    with tenant_scope(tenant_id):
        return terms_of(invoice_id).method == Method.MANUAL


def issue(tenant_id: UUID, invoice_id: UUID) -> None:
    """Number it and wait for the customer; afterwards, hear of what changed, as by a credit note.

    Nothing happens to one that nobody has to attend to.
    """
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        if invoice.collection_state != Invoice.Collection.PENDING:
            return
        fault = _not_for_a_transfer(invoice)
        if fault:
            park(tenant_id, invoice_id, fault)
            return
        if fix_terms(invoice_id).method != Method.MANUAL:
            return  # it was said in between, and the next sweep collects it
        uncarry()
        if invoice.status in _UNISSUED:
            advance(invoice_id, News(Invoice.Status.OPEN, clock.now()))
        Invoice.objects.filter(id=invoice_id).update(
            collection_state=Invoice.Collection.AWAITING_PAYMENT, collection_note=""
        )
        invoice.refresh_from_db()
        _settle(invoice)


def record_payment(
    invoice_id: UUID, *, amount_minor: int, paid_on: date, reference: str, by: str
) -> Recorded:
    """Needs the tenant's door. Raises `CallerError`: `invoice_not_found`, `payment_invalid`,
    `not_paid_by_hand`, `invoice_not_payable`, `payment_reference_taken`, `payment_taken_back`."""
    invoice = _locked(invoice_id)
    reference = _checked(amount_minor, paid_on, reference)
    known = _payments(invoice_id).filter(reference=reference).first()
    if known is not None:
        _same(known, amount_minor, paid_on)
        return Recorded(known.id, known.amount_minor, left_minor(invoice), is_new=False)
    _payable(invoice)
    made = _book(invoice, amount_minor, paid_on=paid_on, reference=reference, recorded_by=by[:120])
    return Recorded(made.id, amount_minor, left_minor(invoice), is_new=True)


def take_back(invoice_id: UUID, payment_id: UUID, *, reason: str, by: str) -> Recorded:
    """Undo a recorded payment, all of it, once: it bounced, or was of another invoice.

    Needs the tenant's door. Raises `CallerError`: `invoice_not_found`, `payment_not_found`,
    `reason_invalid`.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise CallerError(
            "reason_invalid", f"Say why, in 1 to {REASON_CHARS_MAX} characters.", field="reason"
        )
    invoice = _locked(invoice_id)
    payment = _payments(invoice_id).filter(id=payment_id).first()
    if payment is None:
        raise CallerError("payment_not_found", "This invoice has no such payment.", status=404)
    known = RecordedPayment.objects.filter(takes_back=payment).first()
    if known is not None:
        return Recorded(known.id, known.amount_minor, left_minor(invoice), is_new=False)
    made = _book(
        invoice,
        -payment.amount_minor,
        takes_back=payment,
        reason=reason,
        paid_on=clock.now().date(),
        reference=payment.reference,
        recorded_by=by[:120],
    )
    return Recorded(made.id, made.amount_minor, left_minor(invoice), is_new=True)


def recorded_minor(invoice_id: UUID) -> int:
    """What arrived for an invoice so far, and was not taken back. Needs the tenant's door."""
    return _sums(invoice_id)[0]


def left_minor(invoice: Invoice) -> int:
    """What is still to be paid of an invoice, however it is paid. Needs the tenant's door."""
    if invoice.status in (Invoice.Status.PAID, Invoice.Status.VOID):
        return 0
    return max(0, due_minor(invoice) - recorded_minor(invoice.id))


def settle(tenant_id: UUID, invoice_id: UUID) -> None:
    """Pay what is covered meanwhile, as by a credit note that left less to be due."""
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        if invoice.status in _PAYABLE and terms_of(invoice_id).method == Method.MANUAL:
            _settle(invoice)


def payments_of(invoice_id: UUID) -> list[dict[str, Any]]:
    """What arrived, in the order it was recorded, and was taken back. Needs the tenant's door."""
    columns = (
        "id", "amount_minor", "paid_on", "reference", "recorded_by", "recorded_at", "takes_back",
        "reason",
    )  # fmt: skip
    rows = RecordedPayment.objects.filter(invoice_id=invoice_id).exclude(amount_minor=0)
    return list(rows.values(*columns))


def _book(invoice: Invoice, amount_minor: int, **said: Any) -> RecordedPayment:
    """Write a row and its entry, and move the invoice to where that leaves it."""
    arrived, balance = _sums(invoice.id)
    arrived += amount_minor
    due = max(0, due_minor(invoice))
    made: RecordedPayment = RecordedPayment.objects.create(
        tenant_id=invoice.tenant_id,
        invoice=invoice,
        amount_minor=amount_minor,
        balance_minor=max(0, arrived - due) - balance,
        is_recovery=_is_written_off(invoice),
        **said,
    )
    post_entry(entry_of(made))
    _follow(invoice, arrived, due)
    return made


def _settle(invoice: Invoice) -> None:
    arrived, balance = _sums(invoice.id)
    due = max(0, due_minor(invoice))
    if arrived < due:
        return
    if arrived - due > balance:  # a credit note took from what had arrived already
        _book(
            invoice,
            0,
            paid_on=clock.now().date(),
            reference="credit note",
            recorded_by="system",
        )
    else:
        _follow(invoice, arrived, due)


def _follow(invoice: Invoice, arrived: int, due: int) -> None:
    is_paid = invoice.status == Invoice.Status.PAID
    if arrived < due and is_paid:
        reopen(invoice.id, is_written_off=_is_written_off(invoice))
        _say(invoice, Invoice.Collection.AWAITING_PAYMENT, TAKEN_BACK)
        owed_again(invoice)
    elif arrived >= due:
        if is_paid:
            Invoice.objects.filter(id=invoice.id).update(paid_minor=arrived)
        else:
            news = News(Invoice.Status.PAID, clock.now(), paid_minor=arrived, in_parts=True)
            advance(invoice.id, news)
        _say(invoice, Invoice.Collection.DONE, _overpaid(invoice, arrived - due))
    invoice.refresh_from_db()
    judge(invoice.tenant_id)


def _say(invoice: Invoice, collection: str, note: str) -> None:
    Invoice.objects.filter(id=invoice.id).update(collection_state=collection, collection_note=note)


def _overpaid(invoice: Invoice, over_minor: int) -> str:
    if not over_minor:
        return ""
    over = f"{minor_to_text(over_minor, invoice.currency)} {invoice.currency}"
    return f"{over} more was paid than was due: it is the customer's balance in the ledger."


def _not_for_a_transfer(invoice: Invoice) -> str:
    if invoice.awaits_taxes:
        return TAXED_THERE
    return IN_FAVOUR if invoice.total_minor < 0 else ""


def _is_written_off(invoice: Invoice) -> bool:
    """Or was, before payments covered it."""
    if invoice.status != Invoice.Status.PAID:
        return bool(invoice.status == Invoice.Status.UNCOLLECTIBLE)
    newest = _payments(invoice.id).last()
    return newest is not None and newest.is_recovery


def _sums(invoice_id: UUID) -> tuple[int, int]:
    """What arrived, and what of it is the customer's balance."""
    sums = RecordedPayment.objects.filter(invoice_id=invoice_id).aggregate(
        arrived=Sum("amount_minor"), balance=Sum("balance_minor")
    )
    return int(sums["arrived"] or 0), int(sums["balance"] or 0)


def _payments(invoice_id: UUID) -> Any:
    return RecordedPayment.objects.filter(invoice_id=invoice_id, amount_minor__gt=0)


def _locked(invoice_id: UUID) -> Invoice:
    invoice: Invoice | None = Invoice.objects.select_for_update().filter(id=invoice_id).first()
    if invoice is None:
        raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
    return invoice


def _same(known: RecordedPayment, amount_minor: int, paid_on: date) -> None:
    if (known.amount_minor, known.paid_on) != (amount_minor, paid_on):
        raise CallerError(
            "payment_reference_taken",
            f"{known.reference!r} is recorded for this invoice with another amount or day.",
            status=409,
            field="reference",
        )
    if RecordedPayment.objects.filter(takes_back=known).exists():
        raise CallerError(
            "payment_taken_back",
            f"{known.reference!r} was recorded and taken back: what arrived since has a reference"
            " of its own.",
            status=409,
            field="reference",
        )


def _payable(invoice: Invoice) -> None:
    if terms_of(invoice.id).method != Method.MANUAL:
        raise CallerError(
            "not_paid_by_hand",
            "This invoice is collected by the payment provider: record its payment there.",
            status=409,
        )
    if invoice.status not in _PAYABLE and not invoice.paid_in_parts:
        raise CallerError(
            "invoice_not_payable",
            f"This invoice is {invoice.status}; payments are for issued ones that ask for some.",
            status=409,
        )


def _checked(amount_minor: int, paid_on: date, reference: str) -> str:
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        raise _invalid("An amount is above nought, and money that can be.", "amount")
    if paid_on > (clock.now() + timedelta(days=1)).date():
        raise _invalid("The day of a payment is not in the future.", "paid_on")
    reference = " ".join(reference.split())
    if not reference or len(reference) > REFERENCE_CHARS_MAX or not reference.isprintable():
        raise _invalid(f"A reference has 1 to {REFERENCE_CHARS_MAX} characters.", "reference")
    return reference


def _invalid(message: str, field: str) -> CallerError:
    return CallerError("payment_invalid", message, field=field)
