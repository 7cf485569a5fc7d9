"""Blocks of budget from PostgreSQL, for pools that ran short.

Guarantees: a block was granted by `take_budget`, committed, before anyone credits it. Requests of
one worker that find the same pool short take turns. What is granted and then not credited (this
process dies between the two) is lost to the window, never invented. A limit that is reached is
remembered for a second: those who call on do not each cost PostgreSQL a locked row.
"""

import asyncio
import time
from collections import OrderedDict
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meterplane.contracts.policy import Budget, KeyPolicy
from meterplane.gateway.policies import READ_TIMEOUT_S, database_unavailable
from meterplane.kernel.limits import BUDGET_BLOCK_FRACTION

EXHAUSTED_MEMORY_S = 1.0
EXHAUSTED_REMEMBERED_MAX = 4096

_TAKE = "SELECT take_budget(%s, %s, %s, %s, %s, %s, %s)"


class Budgets:
    """Takes blocks for one worker."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        # (scope id, window) -> limit, the smallest amount that was refused, until when
        self._exhausted: OrderedDict[tuple[UUID, str], tuple[int, int, float]] = OrderedDict()
        self.asked = 0
        self.blocks_taken = 0

    def refilling(self, tenant_id: UUID) -> asyncio.Lock:
        """Held by the one request of this worker that refills an organisation's pools."""
        lock = self._locks.get(tenant_id)
        if lock is None:
            lock = self._locks[tenant_id] = asyncio.Lock()
        return lock

    async def take(self, policy: KeyPolicy, budget: Budget, window: str, needed_nano: int) -> int:
        """A block of at least `needed_nano`, or 0 when the limit does not hold that much more.

        Raises `WorldError` when PostgreSQL does not answer.
        """
        if self._is_exhausted(budget, window, needed_nano):
            return 0
        block_nano = budget.limit_nano // BUDGET_BLOCK_FRACTION
        arguments = (
            policy.tenant_id,
            budget.scope,
            budget.scope_id,
            window,
            budget.limit_nano,
            needed_nano,
            block_nano,
        )
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_TAKE, arguments)
                row = await cursor.fetchone()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise database_unavailable() from failure
        self.asked += 1
        granted_nano = int(row[0]) if row else 0
        if granted_nano > 0:
            self.blocks_taken += 1
        else:
            until = time.monotonic() + EXHAUSTED_MEMORY_S
            self._exhausted[budget.scope_id, window] = (budget.limit_nano, needed_nano, until)
            if len(self._exhausted) > EXHAUSTED_REMEMBERED_MAX:
                self._exhausted.popitem(last=False)
        return granted_nano

    def _is_exhausted(self, budget: Budget, window: str, needed_nano: int) -> bool:
        """True if this limit refused no more than this, less than a moment ago."""
        limit_nano, refused_nano, until = self._exhausted.get(
            (budget.scope_id, window), (-1, 0, 0.0)
        )
        return (
            limit_nano == budget.limit_nano
            and needed_nano >= refused_nano
            and time.monotonic() < until
        )
