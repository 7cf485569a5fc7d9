"""One window, every kind: list, match, look at each difference a second time, and say what is left.

A first comparison is of two moments, and news may be on its way: what differs in it is brought up
to date, read again on both sides and compared once more. Only what differs then is told. What was
made there within `UNDER_WAY` and is not ours may be a run's that has not noted it yet: it waits.
"""

from datetime import datetime

from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Found, Row, compare
from billing.payments.reconcile.disputes import disputes
from billing.payments.reconcile.kinds import KINDS, Kind
from billing.payments.reconcile.looked import Looked
from billing.payments.run import LEASE
from meterplane.kernel import clock

UNDER_WAY = 2 * LEASE  # a worker that died has been succeeded by then


def look(provider: PaymentProvider, start: datetime, end: datetime) -> list[Looked]:
    """Compare what was made in [start, end). Raises `WorldError` when the provider is away."""
    return [_look(kind(provider), start, end) for kind in (*KINDS, disputes)]


def _look(kind: Kind, start: datetime, end: datetime) -> Looked:
    theirs = {row.their_id: row for row in kind.theirs_made(start, end)}
    ours = {row.our_id: row for row in kind.ours_made(start, end)}
    ours |= {row.our_id: row for row in kind.ours(theirs)}
    for row in ours.values():
        # Made at the edge of the window by one clock and beyond it by the other.
        if row.their_id and row.their_id not in theirs and (read := kind.theirs(row.their_id)):
            theirs[row.their_id] = read
    first = compare(list(ours.values()), list(theirs.values()))
    left = [found for found in first if not found.their_id]
    for found in first:
        if found.their_id:
            left += _second_look(kind, found, ours)
    return Looked(kind.name, len(ours.keys() | {row.our_id for row in theirs.values()}), left)


def _second_look(kind: Kind, found: Found, ours: dict[str, Row]) -> list[Found]:
    kind.settle(found.their_id)
    theirs = kind.theirs(found.their_id)
    own = kind.ours([found.their_id])
    if not own and theirs is not None and theirs.made_at > clock.now() - UNDER_WAY:
        return []
    # Whose second one it is can be told only beside the first.
    beside = [
        row
        for row in ours.values()
        if theirs and row.our_id == theirs.our_id and row.their_id != found.their_id
    ]
    told = compare([*own, *beside], [theirs] if theirs else [])
    return [each for each in told if each.their_id == found.their_id]
