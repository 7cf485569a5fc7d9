"""Grants of a lost Redis return to their budgets, on the evidence of every journal.

The problem: when the admission Redis is lost, what its pools held is granted and cannot be spent.
How much that is shows only when the last request that was admitted there is settled and taken in.
A timer would not do: a stream may last, a shipper may be behind.

The choice: an epoch is over once Redis answers with another one that a gateway was seen in. From
then on nothing is admitted in it. When every journal root is drained past that instant, all it
ever cost is in `usage_spend`, and what its grants exceed that by goes back, in one transaction
that also closes the epoch: `take_budget` grants nothing in it any more.

Guarantees: a grant returns once or not at all; `granted_nano` never falls below what was spent of
it. In the end it is what was spent in past epochs plus the grants of the live one. All instants
compared are PostgreSQL's.

Of credit what was spent in the epoch is known from its first day, with what ran when its
organisation was held to it: where that is more than was granted, the difference is granted now.

Limits: `MARGIN_S` is what a gateway may take from Redis' answer to its journal; who waits for a
turn in between is asked about once more (`OpenRuns.confirm`). A limit that was set in the middle of
a day counts what its scope spent earlier on that day in the epoch as spent under it: that much less
returns. A root that no shipper was ever seen at is not waited for, one that is gone is until it is
forgotten.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection

from meterplane.contracts import admission_keys, windows
from meterplane.contracts.policy import LimitLevel
from meterplane.contracts.reservations import Granted
from meterplane.kernel.invariant import ensure
from meterplane.metering.watermark import drained_everywhere
from meterplane.policy.grants import NOT_FOLDING, pool_of, tell_pool
from meterplane.policy.publish import admission_redis
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

MARGIN_S = 5
CLOCKS_APART_S = 60  # a gateway's clock and PostgreSQL's, at the very most

_OPEN = """
SELECT tenant_id, epoch, first_seen_at
  FROM budget_epoch
 WHERE accounted_at IS NULL AND tenant_id IN (
   SELECT tenant_id FROM budget_epoch WHERE accounted_at IS NULL
    GROUP BY tenant_id HAVING count(*) > 1)
"""

# What each event counts in, as `applied_limits` of the gateway has it.
_GRANTED_AND_SPENT = """
WITH granted AS (
  SELECT level, scope_id, model, "window", sum(amount_nano)::bigint AS nano,
         ((min(granted_at) - make_interval(secs => %(clocks_apart_s)s)) AT TIME ZONE 'UTC')::date
           AS since
    FROM budget_grant
   WHERE (tenant_id, epoch) = (%(tenant_id)s::uuid, %(epoch)s)
   GROUP BY level, scope_id, model, "window"
), spent AS (
  SELECT scope.level, scope.scope_id, scope.model, calendar."window", s.day,
         sum(s.cost_nano)::bigint AS nano
    FROM usage_spend s
    JOIN api_key k ON (k.tenant_id, k.id) = (s.tenant_id, s.key_id)
   CROSS JOIN LATERAL (VALUES
     ('organisation', s.tenant_id, ''),
     ('project', s.project_id, ''),
     ('key', COALESCE(k.limits_scope_id, k.id), ''),
     ('key_model', COALESCE(k.limits_scope_id, k.id), s.model)) AS scope (level, scope_id, model)
   CROSS JOIN LATERAL (VALUES
     (to_char(s.day, 'YYYY-MM-DD')), (to_char(s.day, 'IYYY-"W"IW')), (to_char(s.day, 'YYYY-MM')),
     ('lifetime'), ('prepaid'), ('credit')) AS calendar ("window")
   WHERE (s.tenant_id, s.epoch) = (%(tenant_id)s::uuid, %(epoch)s)
   GROUP BY 1, 2, 3, 4, 5
)
SELECT g.level, g.scope_id, g.model, g."window", g.nano,
       COALESCE(sum(s.nano) FILTER (WHERE s.day >= g.since), 0)::bigint
  FROM granted g
  LEFT JOIN spent s ON (s.level, s.scope_id, s.model) = (g.level, g.scope_id, g.model)
        AND s."window" = CASE WHEN g."window" LIKE 'credit-%%' THEN 'credit' ELSE g."window" END
 GROUP BY g.level, g.scope_id, g.model, g."window", g.nano
 ORDER BY g.level, g.scope_id, g.model, g."window"
"""

_RETURN = """
UPDATE budget_window
   SET granted_nano = granted_nano - %s, revision = revision + 1
 WHERE (tenant_id, level, scope_id, model, "window") = (%s, %s, %s, %s, %s)
RETURNING granted_nano, revision
"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One that is over: nothing was admitted in it after `over_at`."""

    tenant_id: UUID
    epoch: str
    over_at: datetime
    current: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What went back to one window, and what is granted of it now."""

    level: LimitLevel
    scope_id: UUID
    model: str
    window: str
    nano: int
    granted_nano: int
    revision: int


def return_stranded() -> int:
    """Account for every epoch that is over and drained. Returns for how many that was done."""
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    try:
        waiting = _over(client)
    except redis.RedisError as away:
        log.warning("whether an epoch is over is the admission Redis' to say: %s", away)
        return 0
    if not waiting:
        return 0
    drained_until = drained_everywhere()
    done = 0
    for epoch in waiting:
        if drained_until is None or drained_until <= epoch.over_at + timedelta(seconds=MARGIN_S):
            continue
        returned = account(epoch)
        if returned is None:
            continue
        done += 1
        _tell(client, epoch, returned)
    return done


def _over(client: "redis.Redis") -> Sequence[Epoch]:
    """Epochs whose grants are not accounted for and that are not the live one's.

    Epochs never come back, so one that Redis does not know any more came before the one it knows.
    """
    with system_scope("epochs that may be over"), connection.cursor() as cursor:
        cursor.execute(_OPEN)
        seen: dict[UUID, dict[str, datetime]] = defaultdict(dict)
        for tenant_id, epoch, first_seen_at in cursor.fetchall():
            seen[tenant_id][epoch] = first_seen_at
    pipeline = client.pipeline(transaction=False)
    for tenant_id in seen:
        pipeline.get(admission_keys.epoch(tenant_id))
    over = []
    for (tenant_id, epochs), answer in zip(seen.items(), pipeline.execute(), strict=True):
        current = answer.decode() if answer else ""
        if current in epochs:
            over += [
                Epoch(tenant_id, epoch, epochs[current], current)
                for epoch in epochs
                if epoch != current
            ]
    return over


def account(epoch: Epoch) -> list[Returned] | None:
    """Give back what an epoch's grants exceed its spending by, once. None if that was done."""
    name: dict[str, str | int] = {
        "tenant_id": str(epoch.tenant_id),
        "epoch": epoch.epoch,
        "clocks_apart_s": CLOCKS_APART_S,
    }
    returned = []
    with system_scope("grants of an epoch that is over"), connection.cursor() as cursor:
        cursor.execute(NOT_FOLDING)
        cursor.execute(
            "UPDATE budget_epoch SET accounted_at = clock_timestamp()"
            " WHERE (tenant_id, epoch) = (%(tenant_id)s::uuid, %(epoch)s) AND accounted_at IS NULL",
            name,
        )
        if cursor.rowcount == 0:
            return None
        cursor.execute(_GRANTED_AND_SPENT, name)
        for level, scope_id, model, window, granted_nano, spent_nano in cursor.fetchall():
            back = granted_nano - spent_nano
            if back < 0 and not window.startswith(windows.CREDIT):
                log.error(
                    "%s %s %s %s of %s: %s spent of %s granted; nothing returns",
                    level, scope_id, model, window, epoch.tenant_id, spent_nano, granted_nano,
                )  # fmt: skip
                back = 0
            cursor.execute(_RETURN, [back, epoch.tenant_id, level, scope_id, model, window])
            ensure(cursor.rowcount == 1, "a grant is of one window")
            returned.append(Returned(level, scope_id, model, window, back, *cursor.fetchone()))
        cursor.execute(
            "DELETE FROM budget_grant WHERE (tenant_id, epoch) = (%(tenant_id)s::uuid, %(epoch)s)",
            name,
        )
    log.info(
        "epoch %s of %s is accounted for: %s nano return to %s windows",
        epoch.epoch, epoch.tenant_id, sum(each.nano for each in returned), len(returned),
    )  # fmt: skip
    return returned


def _tell(client: "redis.Redis", epoch: Epoch, returned: Sequence[Returned]) -> None:
    """Remaining budgets are told from what pools know to be granted. Lost, the next grant tells."""
    try:
        for each in returned:
            pool = pool_of(epoch.tenant_id, each.level, each.scope_id, each.model, each.window)
            now = Granted(0, each.granted_nano, each.revision)
            tell_pool(client, pool, epoch.tenant_id, epoch.current, now)
    except redis.RedisError as away:
        log.warning("pools of %s were not told what returned: %s", epoch.tenant_id, away)
