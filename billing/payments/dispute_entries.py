"""What disputes are in the ledger, and what the audit expects of them.

Each movement has an entry of its own, but for credit that is taken and given back: that is posted
with the credit's own movement, of the same id.
"""

from collections.abc import Callable, Mapping
from uuid import UUID

from billing.ledger import movements
from billing.ledger.entry import Entry, Leg, reversed_legs
from billing.ledger.sources import Expected, Page, Source
from billing.payments.models import DisputeMovement

MOVEMENTS_PER_PAGE = 500
_K = DisputeMovement.Kind


def _withdrawn(row: DisputeMovement) -> tuple[Leg, ...]:
    return movements.dispute_withdrawn(row.amount_minor)


def _fee(row: DisputeMovement) -> tuple[Leg, ...]:
    return movements.dispute_fee(row.amount_minor)


def _lost(row: DisputeMovement) -> tuple[Leg, ...]:
    return movements.dispute_lost(
        row.loss_minor, owed_minor=row.owed_minor, balance_minor=row.balance_minor
    )


_LEGS: Mapping[str, Callable[[DisputeMovement], tuple[Leg, ...]]] = {
    _K.WITHDRAWN: _withdrawn,
    _K.REINSTATED: lambda row: reversed_legs(_withdrawn(row)),
    _K.FEE_CHARGED: _fee,
    _K.FEE_RETURNED: lambda row: reversed_legs(_fee(row)),
    _K.LOST: _lost,
    _K.RECOVERED: lambda row: reversed_legs(_lost(row)),
}
KINDS: Mapping[str, str] = {kind: f"dispute.{kind}" for kind in _LEGS}


def entry_of_movement(row: DisputeMovement) -> Entry | None:
    """None for what is posted with credit."""
    legs = _LEGS.get(row.kind)
    if legs is None:
        return None
    memo = f"Dispute {row.dispute.provider_dispute_id}: {_K(row.kind).label.lower()}"
    return Entry(KINDS[row.kind], str(row.id), row.currency, legs(row), row.at, memo)


def _page(after: UUID | None) -> Page:
    rows = DisputeMovement.objects.select_related("dispute").order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    page = list(rows[:MOVEMENTS_PER_PAGE])
    expected = [
        Expected(row.tenant_id, entry)
        for row in page
        if (entry := entry_of_movement(row)) is not None
    ]
    return Page(tuple(expected), None if len(page) < MOVEMENTS_PER_PAGE else page[-1].id)


DISPUTES = Source("disputes", "everything a dispute moved", frozenset(KINDS.values()), _page)
