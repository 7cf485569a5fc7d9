"""How much of what is spent credit covers at an instant: pure arithmetic, no tables, no clock.

The problem: credit is drawn when a period is closed, and a period is closed some time after it has
ended. In between a grant that ended with the period still pays for it, and is no balance any more;
one that began since pays for nothing of it. To read what remains would count the first too late and
the second too early.

The choice: what the ended periods cost is drawn here as their close will, in the same order, and
grants expire and roll over in between as they will. What is left then of the live grants is what
covers the running period.

Guarantees: it never falls when more of an ended period's cost becomes known: `covered` and the cost
together only rise. So whoever knows too little of it allows too little, never too much.

Knows only grants that are for everything: one for some models or meters cannot be told to cover a
request before it is rated. Its amounts are nano.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from billing.credits.draw import Grant, order


@dataclass(frozen=True, slots=True)
class Pocket:
    """What is left of a grant. `rollover_max` of it, on its expiry, begin another as long."""

    grant: Grant
    effective_at: datetime
    rollover_max: int = 0

    def pays_for(self, ends_at: datetime) -> bool:
        """Whether it is live at the last instant of a period that ends then."""
        expires_at = self.grant.expires_at
        return self.effective_at < ends_at and (expires_at is None or expires_at >= ends_at)

    def successor(self) -> "Pocket | None":
        """What it leaves to another when it expires."""
        expires_at, amount = self.grant.expires_at, min(self.grant.amount, self.rollover_max)
        if expires_at is None or not amount:
            return None
        ends_at = expires_at + (expires_at - self.effective_at)
        grant = replace(
            self.grant, id=f"{self.grant.id}+", amount=amount, expires_at=ends_at, created_at=None
        )
        return Pocket(grant, expires_at)


@dataclass(frozen=True, slots=True)
class Ended:
    """A period that is over, and not closed yet: what it cost, as far as that is known."""

    ends_at: datetime
    cost: int


def covered(pockets: Iterable[Pocket], ended: Iterable[Ended], at: datetime) -> int:
    """What is left at `at` for the period that runs then."""
    held = {each.grant.id: each for each in pockets}
    closes = sorted((each for each in ended if each.ends_at <= at), key=lambda each: each.ends_at)
    for period in closes:
        _expire(held, before=period.ends_at)
        _draw(held, period)
    _expire(held, before=at, inclusive=True)
    return sum(each.grant.amount for each in held.values() if each.effective_at <= at)


def changes(pockets: Iterable[Pocket], after: datetime) -> list[datetime]:
    """The instants after `after` at which what is covered may change by the clock alone."""
    instants: set[datetime] = set()
    for each in pockets:
        instants.add(each.effective_at)
        for pocket in (each, each.successor()):
            if pocket is not None and pocket.grant.expires_at is not None:
                instants.add(pocket.grant.expires_at)
    return sorted(instant for instant in instants if instant > after)


def _expire(held: dict[str, Pocket], *, before: datetime, inclusive: bool = False) -> None:
    """A grant that ends with a period pays for it first; of what is over by then nothing is left
    but what rolls over, and that may be over too."""

    def is_over(pocket: Pocket) -> bool:
        expires_at = pocket.grant.expires_at
        if expires_at is None:
            return False
        return expires_at < before or (inclusive and expires_at == before)

    while gone := [each for each in held.values() if is_over(each)]:
        for each in gone:
            del held[each.grant.id]
            successor = each.successor()
            if successor is not None:
                held[successor.grant.id] = successor


def _draw(held: dict[str, Pocket], period: Ended) -> None:
    due = period.cost
    pays = [each.grant for each in held.values() if each.pays_for(period.ends_at)]
    for grant in order(pays):
        taken = min(due, grant.amount)
        due -= taken
        pocket = held[grant.id]
        held[grant.id] = replace(pocket, grant=replace(grant, amount=grant.amount - taken))
