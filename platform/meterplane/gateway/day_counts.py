"""Counts of a day that Redis does not have are made again, from metered usage.

The problem: how many requests and tokens a scope had today is counted in Redis, which may be lost.
Choice: who reads a policy afresh, as everybody must in a new Redis, looks whether the counts of the
day are there, and starts those that are missing with what PostgreSQL knows of the day.

Guarantees: nothing is admitted under a policy in a new Redis before its counts were started. A
count that is there is not touched. A limit set in the middle of a day counts that whole day. Limit:
what was admitted in the seconds before the loss and is not taken in yet is not counted.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meterplane.contracts import admission_keys, windows
from meterplane.contracts.policy import KeyPolicy, Limit
from meterplane.gateway.applied_limits import KEEP_COUNTER_S
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import READ_TIMEOUT_S, database_unavailable
from meterplane.gateway.redis_connection import pack
from meterplane.kernel import clock

_USED = """
SELECT project_id, key_scope_id, model, requests, tokens_in, tokens_out FROM used_on(%s, %s)
"""


class DayCounts:
    """Starts the counts of one worker's keys."""

    def __init__(self, pool: AsyncConnectionPool, calls: LuaCalls) -> None:
        self._pool = pool
        self._calls = calls

    async def start(self, policy: KeyPolicy) -> None:
        """See that every count of today that a policy has a limit of is there.

        Raises `WorldError` 503 when Redis or, where one is missing, PostgreSQL does not answer.
        """
        limits = [each for each in policy.limits if each.window == "day" and each.kind != "spend"]
        if not limits:
            return
        at = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        label = windows.label("day", at)
        counts = {admission_keys.limit(policy.tenant_id, each, label): each for each in limits}
        if await self._calls.ask(pack("EXISTS", *counts)) == len(counts):
            return
        used = await self._used(policy, at)
        lifetime = str(KEEP_COUNTER_S)
        missing = [
            self._calls.ask(pack("SET", key, str(count), "NX", "EX", lifetime))
            for key, limit in counts.items()
            if (count := _count(limit, used))
        ]
        await asyncio.gather(*missing)

    async def _used(self, policy: KeyPolicy, at: datetime) -> Sequence[tuple[Any, ...]]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_USED, (policy.tenant_id, at.date()))
                return await cursor.fetchall()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise database_unavailable() from failure


def _count(limit: Limit, used: Iterable[tuple[Any, ...]]) -> int:
    """What one limit has counted of `used`."""
    total = 0
    for project_id, key_scope_id, model, requests, tokens_in, tokens_out in used:
        scope_id = {"organisation": limit.scope_id, "project": project_id}.get(
            limit.level, key_scope_id
        )
        if scope_id != limit.scope_id or limit.model not in ("", model):
            continue
        total += {
            "requests": requests,
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }[limit.kind]
    return total
