"""What each act on credit posts to the ledger, in its transaction, and what the audit expects.

Between grants nothing is posted: what rolls over stays in the account it is in. So the two accounts
of credit always hold what remains of the grants of their kind.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.credits.models import CreditGrant, CreditMovement, Kind
from billing.ledger import movements
from billing.ledger.entry import Entry, reversed_legs
from billing.ledger.post import post_entry
from billing.ledger.sources import Expected, Page, Source

Moved = Iterable[tuple[CreditGrant, int]]

_K = CreditMovement.Kind
_POSTED = (_K.DRAWN, _K.RESTORED, _K.EXPIRED, _K.REFUNDED, _K.DISPUTED, _K.REINSTATED)
GRANTED = "credit.granted"
SOURCES_PER_PAGE = 500


class _Act(NamedTuple):
    """What one act of movements is known by; a draw moves several grants."""

    tenant_id: UUID
    kind: str
    source_id: UUID


def post_granted(row: CreditGrant) -> None:
    """Bought, or given."""
    post_entry(_granted(row))


def post_moved(kind: str, source_id: UUID, moved: Moved, at: datetime) -> None:
    """What one act moved: drawn, restored, expired, refunded, disputed or reinstated. One grant at
    least."""
    post_entry(_moved(kind, source_id, list(moved), at))


def _granted(row: CreditGrant) -> Entry:
    act = movements.credit_purchased if row.kind == Kind.PURCHASED else movements.credit_given
    memo = f"Credit {row.kind}"
    return Entry(GRANTED, str(row.id), row.currency, act(row.amount_minor), row.created_at, memo)


def _moved(kind: str, source_id: UUID, moved: list[tuple[CreditGrant, int]], at: datetime) -> Entry:
    sums: dict[str, int] = defaultdict(int)
    for row, amount_minor in moved:
        sums[row.kind] += amount_minor
    purchased, promotional = sums[Kind.PURCHASED], sums[Kind.PROMOTIONAL]
    if kind == _K.DRAWN:
        legs = movements.credit_drawn(purchased_minor=purchased, promotional_minor=promotional)
    elif kind == _K.RESTORED:
        legs = movements.credit_restored(purchased_minor=purchased, promotional_minor=promotional)
    elif kind == _K.EXPIRED:
        legs = movements.credit_expired(purchased_minor=purchased, promotional_minor=promotional)
    elif kind == _K.REFUNDED:
        legs = movements.credit_refunded(purchased)
    else:
        legs = movements.credit_disputed(purchased)
        if kind == _K.REINSTATED:
            legs = reversed_legs(legs)
    return Entry(f"credit.{kind}", str(source_id), moved[0][0].currency, legs, at, f"Credit {kind}")


def _page_of_grants(after: UUID | None) -> Page:
    rows = CreditGrant.objects.order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    found = list(rows[:SOURCES_PER_PAGE])
    expected = [
        Expected(row.tenant_id, _granted(row)) for row in found if row.rolled_from_id is None
    ]
    return Page(tuple(expected), None if len(found) < SOURCES_PER_PAGE else found[-1].id)


def _page_of_movements(after: UUID | None) -> Page:
    rows = CreditMovement.objects.exclude(kind=_K.ROLLED_OVER)
    ids = rows.order_by("source_id").values_list("source_id", flat=True).distinct()
    if after is not None:
        ids = ids.filter(source_id__gt=after)
    page = list(ids[:SOURCES_PER_PAGE])
    acts: dict[_Act, list[CreditMovement]] = defaultdict(list)
    for row in rows.filter(source_id__in=page).select_related("grant").order_by("id"):
        acts[_Act(row.tenant_id, row.kind, row.source_id)].append(row)
    expected = [
        Expected(
            act.tenant_id,
            _moved(
                act.kind,
                act.source_id,
                [(row.grant, row.amount_minor) for row in moved],
                moved[0].recorded_at,
            ),
        )
        for act, moved in acts.items()
    ]
    return Page(tuple(expected), None if len(page) < SOURCES_PER_PAGE else page[-1])


GRANTS = Source("credit_grants", "every grant of credit", frozenset({GRANTED}), _page_of_grants)
MOVEMENTS = Source(
    "credit_movements",
    "everything drawn, given back, expired, refunded and disputed",
    frozenset(f"credit.{kind}" for kind in _POSTED),
    _page_of_movements,
)
