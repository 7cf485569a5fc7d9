"""Invoices without a provider: issued by us, paid by bank transfer, settled by an operator.

    open              the invoice has its number and its due date; nobody is called
    payment recorded  payments +, receivable -, as an entry of its own
    covered           that is taken back, and the invoice is paid with all that arrived: what is
                      beyond what was due is the customer's balance, as for every invoice

Guarantees: a payment counts once, by its reference and invoice, whoever sends it how often. The
parts add up to what the invoice says was paid, in the ledger too, and all that in one transaction.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.invoicing.record import due_minor
from billing.ledger.entry import AMOUNT_MINOR_MAX
from billing.ledger.post import post_entry
from billing.payments.judge import judge
from billing.payments.mirror import park
from billing.payments.models import Method, RecordedPayment
from billing.payments.recorded import applied, received
from billing.payments.terms import fix_terms, terms_of
from billing.payments.terms_models import REFERENCE_CHARS_MAX
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope

_UNISSUED = (Invoice.Status.DRAFT, Invoice.Status.FINALISING)
_PAYABLE = (Invoice.Status.OPEN, Invoice.Status.UNCOLLECTIBLE)
IN_FAVOUR = "The total is in the customer's favour: there is nothing to transfer to us. Pay it out."


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
    """Number it and wait for the customer. Issued already, nothing happens."""
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        fix_terms(invoice_id)
        if invoice.status not in _UNISSUED or invoice.collection_state != "pending":
            return
        if invoice.total_minor < 0:
            park(tenant_id, invoice_id, IN_FAVOUR)
            return
        advance(invoice_id, News(Invoice.Status.OPEN, clock.now()))
        Invoice.objects.filter(id=invoice_id).update(
            collection_state=Invoice.Collection.AWAITING_PAYMENT
        )


def record_payment(
    invoice_id: UUID, *, amount_minor: int, paid_on: date, reference: str, by: str
) -> Recorded:
    """Needs the tenant's door. Raises `CallerError`: `payment_invalid`, `not_paid_by_hand`,
    `invoice_not_payable`, `payment_reference_taken`."""
    invoice = Invoice.objects.select_for_update().filter(id=invoice_id).first()
    if invoice is None:
        raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
    reference = _checked(amount_minor, paid_on, reference)
    known = RecordedPayment.objects.filter(invoice_id=invoice_id, reference=reference).first()
    if known is not None:
        if (known.amount_minor, known.paid_on) != (amount_minor, paid_on):
            raise CallerError(
                "payment_reference_taken",
                f"{reference!r} is recorded for this invoice with another amount or day.",
                status=409,
                field="reference",
            )
        return Recorded(known.id, known.amount_minor, left_minor(invoice), is_new=False)
    _payable(invoice)
    made = RecordedPayment.objects.create(
        tenant_id=invoice.tenant_id,
        invoice=invoice,
        amount_minor=amount_minor,
        paid_on=paid_on,
        reference=reference,
        recorded_by=by[:120],
    )
    post_entry(received(made))
    _settle(invoice)
    invoice.refresh_from_db()
    return Recorded(made.id, amount_minor, left_minor(invoice), is_new=True)


def recorded_minor(invoice_id: UUID) -> int:
    """What arrived for an invoice so far. Needs the tenant's door."""
    rows = RecordedPayment.objects.filter(invoice_id=invoice_id)
    return int(rows.aggregate(sum=Sum("amount_minor"))["sum"] or 0)


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


def _settle(invoice: Invoice) -> None:
    arrived = recorded_minor(invoice.id)
    if arrived < due_minor(invoice):
        return
    for each in RecordedPayment.objects.filter(invoice_id=invoice.id):
        post_entry(applied(each, clock.now()))
    advance(invoice.id, News(Invoice.Status.PAID, clock.now(), paid_minor=arrived))
    Invoice.objects.filter(id=invoice.id).update(
        collection_state=Invoice.Collection.DONE, collection_note=""
    )
    judge(invoice.tenant_id)


def _payable(invoice: Invoice) -> None:
    if terms_of(invoice.id).method != Method.MANUAL:
        raise CallerError(
            "not_paid_by_hand",
            "This invoice is collected by the payment provider: record its payment there.",
            status=409,
        )
    if invoice.status not in _PAYABLE:
        raise CallerError(
            "invoice_not_payable",
            f"This invoice is {invoice.status}; payments are for open ones.",
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


def payments_of(invoice_id: UUID) -> list[dict[str, Any]]:
    """What arrived, in the order it was recorded. Needs the tenant's door."""
    columns = ("id", "amount_minor", "paid_on", "reference", "recorded_by", "recorded_at")
    return list(RecordedPayment.objects.filter(invoice_id=invoice_id).values(*columns))
