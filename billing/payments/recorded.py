"""The ledger entries of payments that an operator recorded, and what the audit expects of them.

    received   payments +, receivable -: less is owed from the day that it is recorded
    applied    the exact opposite, in the transaction in which `invoice.paid` books the whole

So an invoice's own entries are the same whoever collected it.
"""

from datetime import datetime
from uuid import UUID

from billing.invoicing.models import Invoice
from billing.ledger import movements
from billing.ledger.entry import Entry, reversed_legs
from billing.ledger.sources import Expected, Page, Source
from billing.payments.models import RecordedPayment

RECEIVED = "payment.received"
APPLIED = "payment.applied"
PAYMENTS_PER_PAGE = 500


def received(payment: RecordedPayment) -> Entry:
    """Money arrived. Its memo is its reference."""
    legs = movements.invoice_paid(payment.amount_minor)
    currency = payment.invoice.currency
    memo = f"Payment {payment.reference} of invoice {payment.invoice.number}"
    return Entry(RECEIVED, str(payment.id), currency, legs, payment.recorded_at, memo)


def applied(payment: RecordedPayment, at: datetime) -> Entry:
    """The invoice is paid, and its own entry says so."""
    whole = received(payment)
    legs = reversed_legs(whole.legs)
    return Entry(APPLIED, whole.source_id, whole.currency, legs, at, f"{whole.memo} applied")


def _page(after: UUID | None) -> Page:
    rows = RecordedPayment.objects.select_related("invoice").order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    found = list(rows[:PAYMENTS_PER_PAGE])
    expected = []
    for each in found:
        expected.append(Expected(each.tenant_id, received(each)))
        if each.invoice.status == Invoice.Status.PAID:
            at = each.invoice.paid_at or each.recorded_at
            expected.append(Expected(each.tenant_id, applied(each, at)))
    is_last = len(found) < PAYMENTS_PER_PAGE
    return Page(tuple(expected), None if is_last else found[-1].id)


RECORDED_PAYMENTS = Source(
    "recorded payments",
    "every payment that an operator recorded",
    frozenset({RECEIVED, APPLIED}),
    _page,
)
