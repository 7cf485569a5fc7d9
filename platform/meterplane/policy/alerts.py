"""Raise the alerts of every organisation whose limits there is news of.

News is usage that was taken in, a policy that changed, or a hit that Redis counted, since the last
look. What is to be told is decided by `alert_rules`, from metered usage (`limits_shown`) and hits
(`limit_hits`).

Guarantees: an alert is raised once per limit, window and threshold, whoever races: the row itself
is the marker. A revision of usage is read before the usage, and noted in the transaction that
raises: what comes in meanwhile is news for the next look. Redis that is away delays its hits and
nothing else. Of a look that fails nothing is noted; the other organisations are looked at.

Usage that comes in up to `LATE` after a window has ended is told of that window, unless policies
changed since: a limit that is new today says nothing of yesterday. Hits of rates and of requests at
once are told of the UTC hour they were taken in from Redis, seconds after they happened.

Limits: a raise that ends brings no news by itself, nor does a new floor of a balance; the next
request does. A look reads all usage of an organisation that has a lifetime or prepaid limit.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection

from meterplane.contracts import windows
from meterplane.contracts.admission_keys import LimitWindowName
from meterplane.kernel import clock
from meterplane.kernel.ids import minted_at_ms, uuid7
from meterplane.policy import alert_rules as rules
from meterplane.policy import limit_hits
from meterplane.policy.alert_rules import Reading, Told
from meterplane.policy.credit_shown import credit_reading
from meterplane.policy.limit_hits import Swept
from meterplane.policy.limits_shown import ShownLimit, shown_limits
from meterplane.policy.models import Alert, GatewayPolicy, HitSweep
from meterplane.policy.publish import admission_redis
from tenants.models import Organisation
from tenants.queries import balance_floor_nano
from tenants.scoping import system_scope, tenant_scope

log = logging.getLogger(__name__)

LOOKS_MAX = 500  # organisations of one pass; who was looked at longest ago comes first
LATE = timedelta(hours=1)
SWEEPS_KEPT = timedelta(days=1)  # a sweep that is counted is forgotten in Redis seconds later

_WITH_NEWS = """
SELECT o.id
  FROM organisation o
  LEFT JOIN usage_revision u ON u.tenant_id = o.id
  LEFT JOIN (SELECT tenant_id, max(version) AS version FROM gateway_policy GROUP BY tenant_id) p
         ON p.tenant_id = o.id
  LEFT JOIN alert_look l ON l.tenant_id = o.id
 WHERE o.id = ANY(%s)
    OR u.revision > COALESCE(l.revision, 0)
    OR p.version > COALESCE(l.version, 0)
 ORDER BY l.looked_at NULLS FIRST, o.id
 LIMIT %s
"""
_OPEN_LOOK = (
    "INSERT INTO alert_look (tenant_id, revision, version, looked_at) VALUES (%s, 0, 0, %s)"
    " ON CONFLICT DO NOTHING"
)
_LOCK_LOOK = "SELECT version FROM alert_look WHERE tenant_id = %s FOR UPDATE SKIP LOCKED"
_SEEN = """
SELECT COALESCE((SELECT revision FROM usage_revision WHERE tenant_id = %(tenant_id)s), 0),
       COALESCE((SELECT max(version) FROM gateway_policy WHERE tenant_id = %(tenant_id)s), 0)
"""
_LOOKED = "UPDATE alert_look SET (revision, version, looked_at) = (%s, %s, %s) WHERE tenant_id = %s"
_COUNTED = (
    "INSERT INTO hit_sweep (id, tenant_id, counted_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
)
# Raised already: no more than its hits are added, and it is not told again.
_RAISE = """
INSERT INTO alert AS a (id, tenant_id, level, scope_id, model, kind, "window", label, threshold,
                        mode, used, amount, hits, raised_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT alert_once_per_window DO UPDATE SET hits = a.hits + excluded.hits
"""


def raise_alerts() -> int:
    """Look at every organisation there is news of, `LOOKS_MAX` of them. Returns how many it was."""
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    with system_scope("whose limits were hit"):
        everyone = list(Organisation.objects.order_by("id").values_list("id", flat=True))
    hit: set[UUID] | None = None
    try:
        hit = limit_hits.organisations_hit(client, everyone)
    except redis.RedisError as away:
        log.warning("hits of limits wait for the admission Redis: %s", away)
    with system_scope("of whose limits there is news"), connection.cursor() as cursor:
        cursor.execute(_WITH_NEWS, [list(hit or ()), LOOKS_MAX])
        news = [tenant_id for (tenant_id,) in cursor.fetchall()]
    for tenant_id in news:
        try:
            swept = limit_hits.take(client, tenant_id) if tenant_id in (hit or ()) else None
            if look_at(tenant_id, swept) and swept is not None:
                limit_hits.forget(client, tenant_id, swept)
        except redis.RedisError as away:
            log.warning("hits of %s wait for the admission Redis: %s", tenant_id, away)
        except Exception:
            log.exception("the limits of %s could not be looked at; the next pass tries", tenant_id)
    if hit is not None and len(news) < LOOKS_MAX:
        _forget_sweeps()
    return len(news)


def look_at(tenant_id: UUID, swept: Swept | None = None) -> bool:
    """Raise what one organisation is to be told, in one transaction.

    False where another worker is at it: nothing was done, `swept` is not counted.
    """
    now = clock.now()
    with system_scope("what an organisation is to be told of its limits"):
        with connection.cursor() as cursor:
            cursor.execute(_OPEN_LOOK, [tenant_id, now])
            cursor.execute(_LOCK_LOOK, [tenant_id])
            if cursor.fetchone() is None:
                return False
            cursor.execute(_SEEN, {"tenant_id": tenant_id})
            revision, version = cursor.fetchone()
            if swept is not None:
                cursor.execute(_COUNTED, [swept.id, tenant_id, now])
                swept = swept if cursor.rowcount else None
        with tenant_scope(tenant_id):
            to_tell = list(_to_tell(Organisation.objects.get(), now, swept))
        with connection.cursor() as cursor:
            for told in to_tell:
                cursor.execute(_RAISE, _row(tenant_id, told, now))
            cursor.execute(_LOOKED, [revision, version, now, tenant_id])
    return True


def _to_tell(organisation: Organisation, now: datetime, swept: Swept | None) -> Iterator[Told]:
    """What hits call for, and the windows that hold now or have just ended. Needs the door."""
    limits = _limits(organisation, now)
    shares = _shares(limits, now)
    before = now - LATE
    if before.date() != now.date() and not _changed_on(now):
        shares = _shares(_limits(organisation, before), before) | shares
    hits = _hits_by_window(swept, limits) if swept is not None else {}
    hits = {name: count for name, count in hits.items() if name.window != "credit"}
    yield from _if_any(_credit_is_low(organisation, now))
    so_far = _told_so_far({name.label for name in (*shares, *hits)})
    for name in sorted({*shares, *hits}):
        reading = shares.get(name) or _reading(limits.get(name._replace(label="")))
        count, told = hits.get(name, 0), so_far[name]
        counted = None
        if name.window != "prepaid":
            counted = rules.of_share(name, reading, count, told)
        elif name in shares:
            floor_nano = balance_floor_nano(organisation, reading.amount or 0)
            yield from _if_any(rules.of_balance(name, reading, floor_nano, told))
        yield from _if_any(counted)
        if counted is None or not counted.hits:
            yield from _if_any(rules.of_hits(name, reading, count, told))


def _credit_is_low(organisation: Organisation, now: datetime) -> Told | None:
    """Of an organisation that is held to its credit; what was refused has told itself then."""
    credit = credit_reading(organisation, now)
    if credit is None:
        return None
    told = _told_so_far({credit.name.label})[credit.name]
    return rules.of_balance(credit.name, credit.reading, credit.floor_nano, told)


def _if_any(told: Told | None) -> Iterator[Told]:
    if told is not None:
        yield told


def _limits(organisation: Organisation, at: datetime) -> dict[LimitWindowName, ShownLimit]:
    """What limits an organisation at an instant, by name without a label.

    Of its operator's and its own of one name, the one that holds.
    """
    shown = [e for scope in shown_limits(organisation, at) for e in scope.limits]
    return {
        LimitWindowName(e.level, e.scope_id, e.model, e.kind, e.window, ""): e
        for e in sorted(shown, key=lambda e: e.looseness, reverse=True)
    }


def _shares(
    limits: dict[LimitWindowName, ShownLimit], at: datetime
) -> dict[LimitWindowName, Reading]:
    """What was used in the windows of an instant, of limits that usage tells of."""
    return {
        name._replace(label=_label(limit, windows.label(limit.window, at))): _reading(limit)
        for name, limit in limits.items()
        if limit.used is not None and limit.amount is not None
    }


def _hits_by_window(
    swept: Swept, limits: dict[LimitWindowName, ShownLimit]
) -> dict[LimitWindowName, int]:
    hour = f"{clock.from_ms(minted_at_ms(swept.id)):%Y-%m-%dT%H}"
    hits: dict[LimitWindowName, int] = defaultdict(int)
    for name, count in swept.hits.items():
        # Days and longer are named in Redis as they are told.
        label = hour if name.window in ("second", "minute", "at_once") else name.label
        hits[name._replace(label=_label(limits.get(name._replace(label="")), label))] += count
    return hits


def _label(limit: ShownLimit | None, label: str) -> str:
    """A balance begins anew with what is paid in."""
    return label if limit is None or limit.window != "prepaid" else f"prepaid:{limit.amount}"


def _reading(limit: ShownLimit | None) -> Reading:
    return Reading(None, "") if limit is None else Reading(limit.amount_now, limit.mode, limit.used)


def _changed_on(now: datetime) -> bool:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return bool(GatewayPolicy.objects.filter(compiled_at__gte=midnight).exists())


def _told_so_far(labels: set[str]) -> dict[LimitWindowName, set[str]]:
    """The thresholds of each window that were told."""
    told: dict[LimitWindowName, set[str]] = defaultdict(set)
    rows = Alert.objects.filter(label__in=labels)
    for *name, threshold in rows.values_list(*LimitWindowName._fields, "threshold"):
        told[LimitWindowName(*name)].add(threshold)
    return told


def _row(tenant_id: UUID, told: Told, now: datetime) -> list[UUID | str | int | datetime | None]:
    name, reading = told.name, told.reading
    return [
        uuid7(), tenant_id, name.level, name.scope_id, name.model, name.kind, name.window,
        name.label, told.threshold, reading.mode, reading.used, reading.amount, told.hits, now,
    ]  # fmt: skip


def _forget_sweeps() -> None:
    """Those that Redis has forgotten: every organisation that was hit was looked at just now."""
    with system_scope("sweeps that are long over"):
        HitSweep.objects.filter(counted_at__lt=clock.now() - SWEEPS_KEPT).delete()
