"""Reservations that nobody will settle any more go back, on the evidence of every journal.

The problem: a request waits for its turn between its reservation and its ADMIT. A gateway that is
killed then leaves reservations that no journal names; a shipper that is killed forgets what it owed
to Redis. A timer would give back what a long stream goes on to spend.

The choice: what is left of a reservation's lifetime says when it was made. Once every journal root
is drained past that, and past the longest wait for a turn after it, its request is in `usage_event`
with what it cost, or it was never forwarded and cost nothing. A gateway that wakes up later finds
it gone, and does not forward either (`OpenRuns.confirm`).

Guarantees: no reservation of a request that may still cost something is touched; `settle.lua` finds
each once, whoever gives it back. Limit: of several reservations of one request, each gives back as
if it had cost what the request did: less than it could, never more.
"""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection

from meterplane.catalog.check_serving import QUEUE_S_MAX
from meterplane.contracts.reservations import SETTLE, settle_call
from meterplane.kernel.ids import minted_on
from meterplane.kernel.limits import RESERVATION_TTL_S
from meterplane.metering.watermark import drained_everywhere
from meterplane.policy.publish import admission_redis
from meterplane.policy.stranded import MARGIN_S
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

ALLOWED_S = QUEUE_S_MAX + MARGIN_S  # from a reservation to its ADMIT, at the very most
PAGE = 1000  # keys that Redis looks at in one call: some 0.3 ms of its time
PATTERN = "mp:*:reservation:*"

_NAME = re.compile(r"mp:\{([0-9a-f-]{36})\}:reservation:([0-9a-f-]{36})(?::[0-9a-f]+)?")
_USED = """
SELECT u.tenant_id, u.request_id, u.cost_nano, u.tokens_in, u.tokens_out
  FROM unnest(%s::uuid[], %s::date[], %s::uuid[]) AS a (tenant_id, event_day, request_id)
  JOIN usage_event u USING (tenant_id, event_day, request_id)
"""

Used = tuple[int, int, int]  # cost_nano, tokens_in, tokens_out


@dataclass(frozen=True, slots=True)
class _Left:
    """One reservation that is old enough, as it stands in Redis."""

    key: str
    record: bytes
    tenant_id: UUID
    request_id: UUID


def reap_reservations() -> int:
    """Give back every reservation whose request is known to be over. Returns how many."""
    drained_until = drained_everywhere()
    if drained_until is None:
        return 0
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    with system_scope("what time it is"), connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (asked_at,) = cursor.fetchone()
    over_before = drained_until - timedelta(seconds=ALLOWED_S)
    reaped = 0
    try:
        for page in _pages(client, asked_at, over_before):
            reaped += _give_back(client, page)
    except redis.RedisError as away:
        log.warning("reservations of requests that are over are left for now: %s", away)
    if reaped:
        log.warning("%s reservations that nobody would settle were given back", reaped)
    return reaped


def _pages(
    client: "redis.Redis", asked_at: datetime, over_before: datetime
) -> Iterator[Sequence[_Left]]:
    """Reservations that were made before `over_before`. `asked_at` is a moment ago."""
    began = time.monotonic()
    cursor = -1
    while cursor != 0:
        cursor, keys = client.scan(max(cursor, 0), match=PATTERN, count=PAGE)
        pipeline = client.pipeline(transaction=False)
        names = [key.decode() if isinstance(key, bytes) else key for key in keys]
        for name in names:
            pipeline.pttl(name)
            pipeline.get(name)
        answers = pipeline.execute()
        now = asked_at + timedelta(seconds=time.monotonic() - began)
        old = []
        for name, left_ms, record in zip(names, answers[::2], answers[1::2], strict=True):
            named = _NAME.fullmatch(name)
            if left_ms < 0 or record is None or named is None:
                continue
            age = timedelta(seconds=RESERVATION_TTL_S, milliseconds=-left_ms)
            if now - age < over_before:
                old.append(_Left(name, record, UUID(named[1]), UUID(named[2])))
        if old:
            yield old


def _give_back(client: "redis.Redis", left: Sequence[_Left]) -> int:
    used = _used(left)
    pipeline = client.pipeline(transaction=False)
    script = client.register_script(SETTLE)
    for each in left:
        what = used.get((each.tenant_id, each.request_id), (0, 0, 0))
        try:
            call = settle_call(each.key, each.record, *what)
        except ValueError as problem:
            log.error("%s is no reservation: %s", each.key, problem)
            continue
        script(*call, client=pipeline)
    return sum(answer != [-1] for answer in pipeline.execute())


def _used(left: Iterable[_Left]) -> dict[tuple[UUID, UUID], Used]:
    """What the requests used that were settled, by organisation and request."""
    asked = [
        (each.tenant_id, minted_on(each.request_id), each.request_id)
        for each in left
        if each.request_id.version == 7
    ]
    with system_scope("what requests cost that held something"), connection.cursor() as cursor:
        cursor.execute(_USED, [list(column) for column in zip(*asked, strict=True)] or [[]] * 3)
        return {
            (tenant_id, request_id): (cost_nano, tokens_in, tokens_out)
            for tenant_id, request_id, cost_nano, tokens_in, tokens_out in cursor.fetchall()
        }
