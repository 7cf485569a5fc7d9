"""Servings of models: read from PostgreSQL on a miss, held in memory.

Guarantees: what is held is what PostgreSQL has, for as long as it is held, because a row of a name
and a version never changes: another serving is another version, which reaches a gateway with the
policies. A version that is not there is asked for once a moment. Callers that ask for the same one
at once share one read.
"""

import asyncio
import time
from collections import OrderedDict

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meterplane.contracts import serving as contract
from meterplane.gateway.policies import READ_TIMEOUT_S
from meterplane.gateway.shared_reads import SharedReads
from meterplane.kernel.errors import WorldError

SERVINGS_HELD_MAX = 2048  # x ~4 kB, a chat template among it = 8 MB
ABSENT_MEMORY_S = 1.0  # a policy that names what is not there yet must not cost a read a request
ABSENT_REMEMBERED_MAX = 2048

_FIND = "SELECT document::text FROM gateway_model WHERE name = %s AND version = %s"
_Key = tuple[str, int]


def serving_unavailable() -> WorldError:
    return WorldError(
        "serving_unavailable",
        "This model could not be looked up just now. Nothing was charged; try again.",
        retry_after_s=1,
    )


class Servings:
    """One worker's view of `gateway_model`."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._held: OrderedDict[_Key, contract.ModelServing] = OrderedDict()
        self._absent: OrderedDict[_Key, float] = OrderedDict()
        self._shared: SharedReads[_Key, contract.ModelServing | None] = SharedReads(self._read)
        self.reads = 0

    def held(self, name: str, version: int) -> contract.ModelServing | None:
        """What `find` would answer without a read; None when it would have to read."""
        key = (name, version)
        serving = self._held.get(key)
        if serving is not None:
            self._held.move_to_end(key)
        return serving

    async def find(self, name: str, version: int) -> contract.ModelServing | None:
        """How a model is reached in this version. None when there is no such version.

        Raises `WorldError` when it must be read and PostgreSQL does not answer.
        """
        serving = self.held(name, version)
        if serving is not None:
            return serving
        key = (name, version)
        until = self._absent.get(key)
        if until is not None:
            if time.monotonic() < until:
                return None
            del self._absent[key]
        return await self._shared.read(key)

    async def _read(self, key: _Key) -> contract.ModelServing | None:
        self.reads += 1
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_FIND, key)
                row = await cursor.fetchone()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise serving_unavailable() from failure
        if row is None:
            self._absent[key] = time.monotonic() + ABSENT_MEMORY_S
            if len(self._absent) > ABSENT_REMEMBERED_MAX:
                self._absent.popitem(last=False)
            return None
        try:
            serving = contract.decode(row[0])
        except msgspec.DecodeError as failure:
            raise serving_unavailable() from failure
        self._held[key] = serving
        if len(self._held) > SERVINGS_HELD_MAX:
            self._held.popitem(last=False)
        return serving
