"""Hits of limits leave Redis once each: taken, written down in PostgreSQL, then forgotten.

The problem: what is read and then deleted in Redis, and written to PostgreSQL in between, is lost
or doubled when the sweep dies on the way, or when two sweeps meet.

The choice: a sweep renames the hash, in one call that also writes its id into it. What is taken is
not added to any more; whoever comes next finds it, under the id it has. The id is written to
PostgreSQL in the transaction that counts the hits: found there, they are counted already. Only then
is the hash deleted, and only if it still has that id.

Guarantee: a hit is counted once, wherever a sweep dies; lost only with Redis, or when nobody sweeps
for a day. Which organisations have hits is asked of all of them by name, `PAGE` in a trip: what
that costs grows with the organisations, not with the keys of Redis, and works on Redis Cluster,
where no set could collect them in the call that refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import redis

from meterplane.contracts import admission_keys
from meterplane.contracts.admission_keys import SWEEP, LimitWindowName
from meterplane.kernel.ids import uuid7

PAGE = 1000  # x ~150 B = 150 kB, some 1 ms of Redis' time

# KEYS[1] hits   KEYS[2] hits that were taken   ARGV[1] the field of the sweep's id   ARGV[2] an id
# Answers what was taken, now or by a sweep that did not finish; nothing where nothing was hit.
_TAKE = """
if redis.call('EXISTS', KEYS[2]) == 0 then
  if redis.call('EXISTS', KEYS[1]) == 0 then
    return {}
  end
  redis.call('RENAME', KEYS[1], KEYS[2])
end
redis.call('PERSIST', KEYS[2])
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HGETALL', KEYS[2])
"""
# KEYS[1] hits that were taken   ARGV[1] the field of the sweep's id   ARGV[2] the id
_FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep took of one organisation. Its id is a UUIDv7: when it was taken."""

    id: UUID
    hits: dict[LimitWindowName, int]


def organisations_hit(client: "redis.Redis", tenant_ids: Sequence[UUID]) -> set[UUID]:
    """Those of whom a limit was hit since the last sweep. Raises redis' errors."""
    hit: set[UUID] = set()
    for start in range(0, len(tenant_ids), PAGE):
        page = tenant_ids[start : start + PAGE]
        pipeline = client.pipeline(transaction=False)
        for tenant_id in page:
            pipeline.exists(admission_keys.hits(tenant_id), admission_keys.hits_swept(tenant_id))
        hit.update(t for t, found in zip(page, pipeline.execute(), strict=True) if found)
    return hit


def take(client: "redis.Redis", tenant_id: UUID) -> Swept | None:
    """Take what was hit, or find what was taken; None where nothing was. Raises redis' errors."""
    keys = (admission_keys.hits(tenant_id), admission_keys.hits_swept(tenant_id))
    answer = client.eval(_TAKE, 2, *keys, SWEEP, str(uuid7()))
    found = {name.decode(): count for name, count in zip(answer[::2], answer[1::2], strict=True)}
    if not found:
        return None
    sweep = UUID(found.pop(SWEEP).decode())
    named = {admission_keys.limit_named(key): int(count) for key, count in found.items()}
    return Swept(sweep, {name: count for name, count in named.items() if name is not None})


def forget(client: "redis.Redis", tenant_id: UUID, swept: Swept) -> None:
    """Delete what was counted. Raises redis' errors."""
    client.eval(_FORGET, 1, admission_keys.hits_swept(tenant_id), SWEEP, str(swept.id))
