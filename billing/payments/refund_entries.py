"""What refunds are in the ledger, and what the audit expects of them.

made    what it is taken from, to payments
failed  the same, reversed
"""

from uuid import UUID

from billing.ledger import movements
from billing.ledger.entry import Entry, reversed_legs
from billing.ledger.sources import Expected, Page, Source
from billing.payments.models import Refund

MADE, FAILED = "refund.made", "refund.failed"
REFUNDS_PER_PAGE = 500


def entries_of_refund(refund: Refund) -> list[Entry]:
    """None while it is only asked for, or was refused."""
    if refund.made_at is None:
        return []
    moved = movements.refund_paid(
        refund.owed_minor, balance_minor=refund.balance_minor, goodwill_minor=refund.goodwill_minor
    )
    what = f"Refund {refund.provider_refund_id}"
    entries = [Entry(MADE, str(refund.id), refund.currency, moved, refund.made_at, what)]
    if refund.failed_at is not None:
        entries.append(
            Entry(
                FAILED,
                str(refund.id),
                refund.currency,
                reversed_legs(moved),
                refund.failed_at,
                f"{what} failed",
            )
        )
    return entries


def _page(after: UUID | None) -> Page:
    rows = Refund.objects.order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    page = list(rows[:REFUNDS_PER_PAGE])
    expected = [
        Expected(refund.tenant_id, entry) for refund in page for entry in entries_of_refund(refund)
    ]
    return Page(tuple(expected), None if len(page) < REFUNDS_PER_PAGE else page[-1].id)


REFUNDS = Source("refunds", "every refund", frozenset({MADE, FAILED}), _page)
