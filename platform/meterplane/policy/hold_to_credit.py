"""Hold an organisation to its credit, or no longer. When a verb returns, the gateways obey.

An organisation is held from an instant on; what it spent in the open period before that uses its
credit too, when the period is closed, but for what interim invoices billed: that has been drawn, or
is owed. So the window of its pool begins with what was spent as granted, and as spent: a grant of
each life of Redis that the usage names, so that what returns of a life that is over (`stranded`) is
what was really lost. Its number tells the pool of this time of being held from those of earlier
ones.

Limit: of requests that ran when it began, each counts once it was taken in (`count_late_opening`),
seconds after it ended. Whether it came in before that instant is by its gateway's clock.
"""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.db import connection

from billing.credits.models import CreditHold
from billing.credits.turns import one_act_at_a_time
from billing.invoicing.close import one_closer_at_a_time, open_period
from billing.invoicing.interim_lines import interims_of
from meterplane.contracts import windows
from meterplane.contracts.reservations import Granted
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.money import minor_to_nano
from meterplane.metering import arrivals
from meterplane.metering.queries import cost_between
from meterplane.policy.credit_limit import covered_nano
from meterplane.policy.models import BudgetEpoch, BudgetGrant, BudgetWindow
from meterplane.policy.stranded import CLOCKS_APART_S
from tenants import policy_port
from tenants.models import Organisation
from tenants.queries import organisation
from tenants.scoping import system_scope, tenant_scope

FIRST_BLOCK_NANO = 10**9  # `take_budget` keeps it below an eighth of the amount
LATE = timedelta(days=1)  # after it was held, what came in before that is taken in

_SPENT_BY_EPOCH = """
SELECT epoch, sum(cost_nano)::bigint FROM usage_spend
 WHERE tenant_id = %s AND day >= %s GROUP BY epoch ORDER BY epoch
"""
_COUNT_LATE = """
UPDATE budget_window SET granted_nano = granted_nano + %s, revision = revision + 1
 WHERE tenant_id = %s AND "window" = %s
RETURNING granted_nano, revision
"""


def hold_to_credit(tenant_id: UUID) -> bool:
    """From now on nothing is admitted that live credit does not cover; False if it was so before.

    Raises `CallerError` 404 `organisation_not_found`.
    """
    with system_scope("an organisation is held to its credit"):
        with tenant_scope(tenant_id):
            _lock(tenant_id)
            if CreditHold.objects.filter(is_held=True).exists():
                return False
            hold = _begin(tenant_id)
            amount_nano = covered_nano(hold, hold.held_since)
            spent = _spent_by_epoch(tenant_id, hold.counted_from)
        _open_window(hold, amount_nano, spent)
        with tenant_scope(tenant_id):
            policy_port.recompile(tenant_id)
    return True


def release_from_credit(tenant_id: UUID) -> bool:
    """What credit does not cover is invoiced; False if it was so before.

    Raises `CallerError` 404 `organisation_not_found`.
    """
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        released = CreditHold.objects.filter(is_held=True).update(is_held=False)
        if released:
            policy_port.recompile(tenant_id)
    return bool(released)


def count_late_opening(tenant_id: UUID) -> Granted | None:
    """What ran when the organisation was held to its credit, and was taken in since, is spent.

    Answers what its window was granted then, for its pool to be told; None where nothing came.
    """
    with system_scope("what ran when an organisation was held to its credit"):
        with tenant_scope(tenant_id):
            one_act_at_a_time(tenant_id)
            hold: CreditHold | None = CreditHold.objects.filter(is_held=True).first()
            if hold is None:
                return None
            spent_nano = cost_between(hold.counted_from, hold.held_since)
            late_nano = spent_nano - hold.opening_nano
            if late_nano <= 0:
                return None
            hold.opening_nano = spent_nano
            hold.save(update_fields=["opening_nano"])
        label = windows.label("credit", hold.held_since, hold.generation)
        with connection.cursor() as cursor:
            cursor.execute(_COUNT_LATE, [late_nano, tenant_id, label])
            granted_nano, revision = cursor.fetchone()
        epochs = BudgetEpoch.objects.filter(tenant_id=tenant_id, accounted_at=None)
        newest = epochs.order_by("-first_seen_at").first()
        if newest is not None:
            _grant(hold, newest.epoch, late_nano)
        return Granted(0, granted_nano, revision)


def _lock(tenant_id: UUID) -> None:
    """In the order of every act: periods, credit, the organisation."""
    one_closer_at_a_time(tenant_id)
    one_act_at_a_time(tenant_id)
    rows = Organisation.objects.select_for_update(no_key=True).filter(id=tenant_id)
    if rows.first() is None:
        raise CallerError("organisation_not_found", "There is no such organisation.", status=404)


def _begin(tenant_id: UUID) -> CreditHold:
    """Usage is held: what had arrived is counted here, what arrives later is not."""
    arrivals.hold()
    now, period = clock.now(), open_period()
    counted_from = period.starts_at.date()
    before_nano = cost_between(counted_from, period.starts_at)
    before: CreditHold | None = CreditHold.objects.first()
    hold: CreditHold
    hold, _ = CreditHold.objects.update_or_create(
        tenant_id=tenant_id,
        defaults={
            "is_held": True,
            "generation": 1 if before is None else before.generation + 1,
            "held_since": now,
            "counted_from": counted_from,
            "opening_nano": cost_between(counted_from, now),
            "settled_nano": before_nano + _billed_nano(counted_from, period.starts_at, before_nano),
        },
    )
    return hold


def _billed_nano(counted_from: date, starts_at: datetime, before_nano: int) -> int:
    """What the running period cost as far as interim invoices billed it, and no more than they did:
    some of it may have arrived since."""
    interims = interims_of(starts_at)
    if not interims:
        return 0
    billed_minor = sum(each.billed_minor for each in interims)
    cost_nano = cost_between(counted_from, interims[-1].ends_at) - before_nano
    return min(cost_nano, minor_to_nano(billed_minor, organisation().currency))


def _spent_by_epoch(tenant_id: UUID, since: date) -> list[tuple[str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(_SPENT_BY_EPOCH, [tenant_id, since])
        return list(cursor.fetchall())


def _open_window(hold: CreditHold, amount_nano: int, spent: list[tuple[str, int]]) -> None:
    BudgetWindow.objects.create(
        tenant_id=hold.tenant_id,
        level="organisation",
        scope_id=hold.tenant_id,
        window=windows.label("credit", hold.held_since, hold.generation),
        limit_nano=amount_nano,
        granted_nano=hold.opening_nano,
        block_nano=FIRST_BLOCK_NANO,
    )
    for epoch, nano in spent:
        seen, _ = BudgetEpoch.objects.get_or_create(tenant_id=hold.tenant_id, epoch=epoch)
        if seen.accounted_at is None:
            _grant(hold, epoch, nano)


def _grant(hold: CreditHold, epoch: str, nano: int) -> None:
    """Spent already: no pool gets it."""
    midnight = datetime.combine(hold.counted_from, datetime.min.time(), UTC)
    BudgetGrant.objects.create(
        id=uuid7(),
        tenant_id=hold.tenant_id,
        level="organisation",
        scope_id=hold.tenant_id,
        window=windows.label("credit", hold.held_since, hold.generation),
        epoch=epoch,
        amount_nano=nano,
        # Whoever accounts for it counts usage from this day on.
        granted_at=midnight + timedelta(seconds=CLOCKS_APART_S),
        credited=True,
        is_pooled=False,
    )
