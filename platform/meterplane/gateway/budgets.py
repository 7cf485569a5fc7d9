"""Blocks of budget from PostgreSQL, for pools that ran short.

Guarantees: a block was granted by `take_budget`, committed, before anyone credits it. Requests of
one worker that find the same pool short take turns. What is granted and then not credited (this
process dies between the two) is credited by the control plane, which finds the grant there. A limit
that is reached is remembered for a moment: those who call on do not each cost PostgreSQL a locked
row.
"""

import asyncio
import time
from collections import OrderedDict
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meterplane.contracts.policy import KeyPolicy
from meterplane.contracts.reservations import Granted
from meterplane.gateway.applied_limits import AppliedLimit
from meterplane.gateway.policies import READ_TIMEOUT_S, database_unavailable

EXHAUSTED_MEMORY_S = 1.0
EXHAUSTED_REMEMBERED_MAX = 4096

_TAKE = (
    "SELECT block, granted, revision, stranded, in_epoch, under_way"
    "  FROM take_budget(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


class Budgets:
    """Takes blocks for one worker."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        # pool and epoch -> limit, the smallest amount that was refused, the answer, until when
        self._exhausted: OrderedDict[tuple[str, str], tuple[int, int, Granted, float]] = (
            OrderedDict()
        )
        self.asked = 0
        self.blocks_taken = 0

    def refilling(self, tenant_id: UUID) -> asyncio.Lock:
        """Held by the one request of this worker that refills an organisation's pools."""
        lock = self._locks.get(tenant_id)
        if lock is None:
            lock = self._locks[tenant_id] = asyncio.Lock()
        return lock

    async def take(
        self,
        policy: KeyPolicy,
        budget: AppliedLimit,
        needed_nano: int,
        epoch: str,
        grant_id: UUID,
        revision: int,
    ) -> Granted:
        """A block of at least `needed_nano`; of 0 when the limit does not hold that much more, or
        while a block is under way to a pool that was last told of `revision`.

        Raises `WorldError` when PostgreSQL does not answer.
        """
        known = self._known_exhausted(budget, needed_nano, epoch)
        if known is not None:
            return known
        limit = budget.limit
        arguments = (
            policy.tenant_id,
            limit.level,
            limit.scope_id,
            limit.model,
            budget.label,
            budget.amount,
            needed_nano,
            epoch,
            grant_id,
            revision,
        )
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_TAKE, arguments)
                row = await cursor.fetchone()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise database_unavailable() from failure
        self.asked += 1
        if row is None:
            raise database_unavailable()
        granted = Granted(*row)
        if granted.block_nano > 0:
            self.blocks_taken += 1
        elif not granted.under_way:
            until = time.monotonic() + EXHAUSTED_MEMORY_S
            self._exhausted[budget.key, epoch] = (budget.amount, needed_nano, granted, until)
            if len(self._exhausted) > EXHAUSTED_REMEMBERED_MAX:
                self._exhausted.popitem(last=False)
        return granted

    def _known_exhausted(
        self, budget: AppliedLimit, needed_nano: int, epoch: str
    ) -> Granted | None:
        """The answer, if this limit refused no more than this, less than a moment ago."""
        known = self._exhausted.get((budget.key, epoch))
        if known is None:
            return None
        amount, refused_nano, granted, until = known
        if amount != budget.amount or needed_nano < refused_nano or time.monotonic() >= until:
            return None
        return granted
