"""One window, every kind: list, match, look at each difference a second time, and say what is left.

A first comparison is of two moments, and news may be on its way: what differs in it is brought up
to date, read again on both sides and compared once more. Only what differs then is told. What was
made there within `UNDER_WAY` and is not ours may be a run's that has not noted it yet: it waits, as
does what a worker holds at that moment.
"""

from contextlib import suppress
from datetime import datetime

from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.reconcile.compare import Found, Row, compare
from billing.payments.reconcile.kind import Kind
from billing.payments.reconcile.kinds import KINDS
from billing.payments.reconcile.looked import Looked
from billing.payments.run import LEASE
from meterplane.kernel import clock

UNDER_WAY = 2 * LEASE  # a worker that died has been succeeded by then


def look(provider: PaymentProvider, start: datetime, end: datetime) -> list[Looked]:
    """Compare what was made in [start, end). Raises `WorldError` when the provider is away."""
    return [_look(kind(provider), start, end) for kind in KINDS]


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
    undecided: set[str] = set()
    for found in first:
        if not found.their_id:
            continue
        told = _second_look(kind, found, ours)
        if told is None:
            undecided.add(found.their_id)
        else:
            left += told
    compared = len(ours.keys() | {row.our_id or row.their_id for row in theirs.values()})
    return Looked(kind.name, compared, left, undecided=frozenset(undecided))


def _second_look(kind: Kind, found: Found, ours: dict[str, Row]) -> list[Found] | None:
    """What still differs; None while that cannot be said."""
    with suppress(ProviderRefused):  # what cannot be brought up to date differs as it is
        kind.settle(found.their_id)
    theirs = kind.theirs(found.their_id)
    own = kind.ours([found.their_id])
    # Whose second one it is can be told only beside the first.
    beside = [
        row
        for row in ours.values()
        if theirs and row.our_id == theirs.our_id and row.their_id != found.their_id
    ]
    told = compare([*own, *beside], [theirs] if theirs else [])
    told = [each for each in told if each.their_id == found.their_id]
    is_new = not own and theirs is not None and theirs.made_at > clock.now() - UNDER_WAY
    if told and (is_new or any(row.under_way for row in own)):
        return None
    return told
