"""The ledger entries of payments that an operator recorded, and what the audit expects of them.

Each row has one: money arrived, it was none after all, or what had arrived is more than is due now.
An invoice that they pay has no `invoice.paid` of its own.
"""

from uuid import UUID

from billing.ledger import movements
from billing.ledger.entry import Entry
from billing.ledger.sources import Expected, Page, Source
from billing.payments.models import RecordedPayment

RECORDED = "payment.recorded"
PAYMENTS_PER_PAGE = 500


def entry_of(row: RecordedPayment) -> Entry:
    """Its memo is the payment's reference."""
    legs = movements.payment_recorded(
        row.amount_minor, balance_minor=row.balance_minor, is_recovery=row.is_recovery
    )
    memo = f"{_act(row)} {row.reference} of invoice {row.invoice.number}"
    return Entry(RECORDED, str(row.id), row.invoice.currency, legs, row.recorded_at, memo)


def _act(row: RecordedPayment) -> str:
    if row.amount_minor > 0:
        return "Payment"
    return "Taken back: payment" if row.amount_minor else "Less is due:"


def _page(after: UUID | None) -> Page:
    rows = RecordedPayment.objects.select_related("invoice").order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    found = list(rows[:PAYMENTS_PER_PAGE])
    is_last = len(found) < PAYMENTS_PER_PAGE
    expected = tuple(Expected(row.tenant_id, entry_of(row)) for row in found)
    return Page(expected, None if is_last else found[-1].id)


RECORDED_PAYMENTS = Source(
    "recorded_payments",
    "every payment that an operator recorded or took back",
    frozenset({RECORDED}),
    _page,
)
