"""The limit of an organisation that is held to its credit, for its keys' policies.

Its amount is what `credits.hold` calls covered: now and, as steps, from the instants at which the
clock alone changes it, when a grant begins or ends and when the running period does. So an expiry
waits for no sweep: every gateway counts it at its instant.

Limit: of a period that ends only what has arrived is known. Where a grant ends with it, what that
pays of the rest is withheld until the rest arrives and the policy is compiled anew; that it is to
be, soon, is noted with the hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.credits.covered import Ended, Pocket, changes, covered
from billing.credits.hold import hold_of_tenant
from billing.credits.models import CreditHold, CreditRemaining
from billing.credits.queries import as_drawn_from
from billing.invoicing.close import open_period
from billing.invoicing.usage import month_after
from meterplane.contracts.policy import AmountStep, Limit
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_nano
from meterplane.metering.queries import cost_between

AMOUNT_NANO_MAX = 2**63 - 1  # a column holds no more; of credit beyond it nobody can be told
STEPS_MAX = 64  # what comes after is compiled when one of these has come
LOOK_BEFORE = timedelta(seconds=60)  # by then nearly all is known that the running period costs


@dataclass(frozen=True, slots=True)
class _Known:
    """All that decides what is covered. `ended` has the running period too, for when it is over;
    `settled_nano` what was spent in periods that are closed."""

    pockets: Sequence[Pocket]
    ended: Sequence[Ended]
    settled_nano: int

    def amount_at(self, at: datetime) -> int:
        """Of all that was ever spent, and is."""
        over = [each for each in self.ended if each.ends_at <= at]
        spent_nano = self.settled_nano + sum(each.cost for each in over)
        return min(AMOUNT_NANO_MAX, covered(self.pockets, over, at) + spent_nano)


def compiled_credit_limit() -> Limit | None:
    """What credit allows from now on; None for an organisation that is not held to it.

    Needs its door and the lock of who compiles: what is compiled is noted with the hold.
    """
    hold = hold_of_tenant()
    if hold is None:
        return None
    now = clock.now()
    known = _known(hold, now)
    amount = known.amount_at(now)
    steps = _steps(known, amount, now)
    hold.amount_nano = max([amount, *(step.amount for step in steps)])
    hold.next_look_at = _next_look(known, steps, now)
    hold.save(update_fields=["amount_nano", "next_look_at"])
    return Limit(
        level="organisation",
        scope_id=hold.tenant_id,
        kind="spend",
        window="credit",
        amount=amount,
        generation=hold.generation,
        steps=steps,
    )


def covered_nano(hold: CreditHold, at: datetime) -> int:
    """Of all that was spent since it is counted, what credit covers. Needs the tenant's door."""
    return _known(hold, at).amount_at(at)


def _known(hold: CreditHold, now: datetime) -> _Known:
    rows = CreditRemaining.objects.filter(
        remaining_minor__gt=0, grant__models_only=[], grant__meters_only=[]
    ).select_related("grant", "grant__successor")
    pockets = [_pocket(row) for row in rows]
    ended, spent_nano = [], hold.settled_nano
    ends_at = open_period().starts_at
    while ends_at <= now:
        ends_at = month_after(ends_at)
        # What came late of closed periods is drawn with the first of these.
        cost_nano = max(0, cost_between(hold.counted_from, min(ends_at, now)) - spent_nano)
        ended.append(Ended(ends_at, cost_nano))
        spent_nano += cost_nano
    return _Known(pockets, ended, hold.settled_nano)


def _pocket(row: CreditRemaining) -> Pocket:
    of = row.grant
    left = minor_to_nano(row.remaining_minor, of.currency)
    rollover_max = minor_to_nano(of.rollover_max_minor or 0, of.currency)
    has_rolled_over = hasattr(of, "successor")
    return Pocket(as_drawn_from(of, left), of.effective_at, 0 if has_rolled_over else rollover_max)


def _steps(known: _Known, amount: int, now: datetime) -> list[AmountStep]:
    """Where the amount becomes another, in order."""
    ends = [each.ends_at for each in known.ended if each.ends_at > now]
    instants = sorted({*changes(known.pockets, now), *ends})
    steps = []
    for instant in instants[:STEPS_MAX]:
        then = known.amount_at(instant)
        if then != amount:
            amount = then
            steps.append(AmountStep(from_ms=clock.to_ms(instant), amount=then))
    return steps


def _next_look(known: _Known, steps: Sequence[AmountStep], now: datetime) -> datetime | None:
    """When it is to be compiled anew: at once, again and again, while what will be known changes
    what is covered."""
    over = [each for each in known.ended if each.ends_at <= now]
    ended_with_it = any(
        each.grant.expires_at is not None and each.grant.expires_at <= now for each in known.pockets
    )
    if over and ended_with_it:
        return now
    return clock.from_ms(steps[0].from_ms) - LOOK_BEFORE if steps else None
