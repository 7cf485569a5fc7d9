"""Grants that were written down: each reaches its pool, and their rows stay few.

The problem: a block is granted in PostgreSQL, then credited in Redis. A gateway that dies between
the two leaves a block that counts as granted and that nobody can spend. Choice: every grant is
credited again by a sweep, a few seconds later. `credit.lua` knows the grants of its epoch by id, so
most of that changes nothing.

Guarantees: a grant reaches its pool once, or its epoch is over and it never does. Redis that is
away is asked again by the next sweep. A grant older than half of what Redis remembers ids for is
left alone: it might be credited twice. It returns with its epoch (`stranded.py`).
"""

import logging
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection

from meterplane.contracts import admission_keys, windows
from meterplane.contracts.policy import Limit, LimitLevel
from meterplane.contracts.reservations import CREDIT, POOL_KEEP_S, Granted, credit_call
from meterplane.kernel.ids import uuid7
from meterplane.policy.publish import admission_redis
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

OVERDUE_S = 3  # a gateway credits within milliseconds of the grant
BATCH_MAX = 1000  # grants of one sweep: 1,000 x ~0.5 kB in one pipeline
FOLDED_AFTER_S = 3600
FORGOTTEN_AFTER_DAYS = 45  # by then the month of a grant has ended, and the requests of it too

_UNCREDITED = """
SELECT g.id, g.tenant_id, g.level, g.scope_id, g.model, g."window", g.epoch, g.amount_nano,
       w.granted_nano, w.revision
  FROM budget_grant g
  JOIN budget_window w USING (tenant_id, level, scope_id, model, "window")
 WHERE NOT g.credited
   AND g.granted_at < clock_timestamp() - make_interval(secs => %s)
   AND g.granted_at > clock_timestamp() - make_interval(secs => %s)
 ORDER BY g.granted_at
 LIMIT %s
"""

# Rows that are added up just now would be missed by whoever accounts for their epoch.
FOLDING = "SELECT pg_advisory_xact_lock(hashtextextended('budget_grant', 0))"
NOT_FOLDING = "SELECT pg_advisory_xact_lock_shared(hashtextextended('budget_grant', 0))"

_FOLD = """
WITH many AS (
  SELECT tenant_id, epoch, level, scope_id, model, "window"
    FROM budget_grant
   WHERE credited AND is_pooled
     AND granted_at < clock_timestamp() - make_interval(secs => %(age_s)s)
   GROUP BY 1, 2, 3, 4, 5, 6 HAVING count(*) > 1
), taken AS (
  DELETE FROM budget_grant g USING many m
   WHERE (g.tenant_id, g.epoch, g.level, g.scope_id, g.model, g."window")
       = (m.tenant_id, m.epoch, m.level, m.scope_id, m.model, m."window")
     AND g.credited AND g.is_pooled
     AND g.granted_at < clock_timestamp() - make_interval(secs => %(age_s)s)
  RETURNING g.*
)
INSERT INTO budget_grant (id, tenant_id, epoch, level, scope_id, model, "window", amount_nano,
                          granted_at, credited)
SELECT gen_random_uuid(), tenant_id, epoch, level, scope_id, model, "window", sum(amount_nano),
       min(granted_at), true
  FROM taken GROUP BY tenant_id, epoch, level, scope_id, model, "window"
"""
_FORGET = """
DELETE FROM budget_grant
 WHERE granted_at < clock_timestamp() - make_interval(days => %s)
   AND "window" NOT IN ('lifetime', 'prepaid') AND "window" NOT LIKE 'credit-%%'
"""


def pool_of(tenant_id: UUID, level: LimitLevel, scope_id: UUID, model: str, label: str) -> str:
    """The pool of a budget in the window of that label."""
    window = windows.of_label(label)
    budget = Limit(
        level=level, scope_id=scope_id, kind="spend", window=window, amount=0, model=model
    )
    return admission_keys.limit(tenant_id, budget, label)


def credit_uncredited() -> int:
    """Credit again what nobody is known to have credited. Returns how many pools had lacked it."""
    with system_scope("grants nobody is known to have credited"), connection.cursor() as cursor:
        cursor.execute(_UNCREDITED, [OVERDUE_S, POOL_KEEP_S // 2, BATCH_MAX])
        rows = cursor.fetchall()
    if not rows:
        return 0
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    pipeline = client.pipeline(transaction=False)
    script = client.register_script(CREDIT)
    for grant_id, tenant_id, level, scope_id, model, label, epoch, nano, granted, revision in rows:
        pool = pool_of(tenant_id, level, scope_id, model, label)
        script(
            *credit_call(tenant_id, pool, epoch, grant_id, Granted(nano, granted, revision)),
            client=pipeline,
        )
    try:
        answers = pipeline.execute(raise_on_error=False)
    except redis.RedisError as away:
        log.warning("%s grants wait for the admission Redis: %s", len(rows), away)
        return 0
    known = [row[0] for row, answer in zip(rows, answers, strict=True) if isinstance(answer, int)]
    if len(known) < len(rows):
        log.error("%s grants could not be credited: %s", len(rows) - len(known), answers)
    with system_scope("grants that were credited"), connection.cursor() as cursor:
        cursor.execute("UPDATE budget_grant SET credited = true WHERE id = ANY(%s)", [known])
    return sum(answer == 1 for answer in answers)


def tell_pool(client: "redis.Redis", pool: str, tenant_id: UUID, epoch: str, now: Granted) -> None:
    """Tell a pool what is granted of its window now. Raises redis' errors."""
    keys, arguments = credit_call(tenant_id, pool, epoch, uuid7(), now)
    client.eval(CREDIT, len(keys), *keys, *arguments)


def fold_grants() -> None:
    """Make one row of the old grants of a window in an epoch; forget those of windows long over."""
    with system_scope("grants are added up"), connection.cursor() as cursor:
        cursor.execute(FOLDING)
        cursor.execute(_FOLD, {"age_s": FOLDED_AFTER_S})
        cursor.execute(_FORGET, [FORGOTTEN_AFTER_DAYS])
