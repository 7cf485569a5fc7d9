"""Policies of keys: read from PostgreSQL on a miss, held in memory, remembered when unknown.

Guarantees: an unknown key costs one read, then none for `UNKNOWN_KEY_MEMORY_S`; callers that ask
for the same digest at once share one read. Whether a held policy is still current is not decided
here: admission compares its version. Caches are keyed by the whole digest, never by a part of it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meterplane.contracts.policy import KeyPolicy, KeyStatus
from meterplane.gateway.policy_documents import PolicyDocuments
from meterplane.gateway.shared_reads import SharedReads
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import (
    POLICY_CACHE_AGE_S_MAX,
    POLICY_CACHE_ENTRIES_MAX,
    UNKNOWN_KEY_MEMORY_S,
    UNKNOWN_KEYS_REMEMBERED_MAX,
)

_FIND = "SELECT document::text FROM gateway_policy WHERE digest = %s"
_STANDINGS = """
SELECT digest, version, document->>'status', document->>'status_reason',
       (document->>'expires_at_ms')::bigint
FROM gateway_policy WHERE digest = ANY(%s)
"""
READ_TIMEOUT_S = 2.0
_PROBE = "SELECT 1 FROM gateway_policy LIMIT 1"
PROBE_TIMEOUT_S = 0.5  # whoever probes us waits a second or so


def database_unavailable() -> WorldError:
    return WorldError(
        "policy_unavailable",
        "This key could not be looked up just now. Nothing was charged; try again.",
        retry_after_s=1,
    )


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Of a policy, whether its key may infer; the fields are `KeyPolicy`'s."""

    version: int
    status: KeyStatus
    status_reason: str
    expires_at_ms: int | None


class Policies:
    """One worker's view of `gateway_policy`."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._held: OrderedDict[bytes, tuple[KeyPolicy, float]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._documents = PolicyDocuments()
        self._shared: SharedReads[bytes, KeyPolicy | None] = SharedReads(self._read)
        self.reads = 0

    def held(self, digest: bytes, age_s_max: float = POLICY_CACHE_AGE_S_MAX) -> KeyPolicy | None:
        """The policy of a key if it is held and young enough. No I/O."""
        held = self._held.get(digest)
        if held is None or time.monotonic() - held[1] >= age_s_max:
            return None
        self._held.move_to_end(digest)
        return held[0]

    async def find(
        self, digest: bytes, age_s_max: float = POLICY_CACHE_AGE_S_MAX
    ) -> KeyPolicy | None:
        """The policy of a key, held for at most `age_s_max` or read. None for an unknown key.

        Raises `WorldError` when it must be read and PostgreSQL does not answer.
        """
        held = self.held(digest, age_s_max)
        if held is not None:
            return held
        until = self._unknown.get(digest)
        if until is not None:
            if time.monotonic() < until:
                return None
            del self._unknown[digest]
        return await self.read(digest)

    async def readable(self) -> bool:
        """Can a key be looked up, or is one held that needs no look-up?"""
        young = time.monotonic() - POLICY_CACHE_AGE_S_MAX
        if any(read_at > young for _, read_at in self._held.values()):
            return True
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S), self._pool.connection() as connection:
                await connection.execute(_PROBE)
        except (psycopg.Error, PoolTimeout, TimeoutError):
            return False
        return True

    async def read(self, digest: bytes) -> KeyPolicy | None:
        """The policy as PostgreSQL has it now. Callers that ask at once share the read."""
        return await self._shared.read(digest)

    async def read_afresh(self, digest: bytes) -> KeyPolicy | None:
        """Like `read`, but never joins a read that began earlier: it may predate the change."""
        return await self._read(digest)

    async def standings(self, digests: Sequence[bytes]) -> dict[bytes, Standing]:
        """Which of these keys may infer, as PostgreSQL has it now; without those it does not have.

        Raises `WorldError` when it does not answer. What is held is not changed: that is for
        whoever asks with the key next.
        """
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_STANDINGS, (list(digests),))
                rows = await cursor.fetchall()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise database_unavailable() from failure
        return {bytes(digest): Standing(*rest) for digest, *rest in rows}

    async def _read(self, digest: bytes) -> KeyPolicy | None:
        self.reads += 1
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._pool.connection() as connection:
                cursor = await connection.execute(_FIND, (digest,))
                row = await cursor.fetchone()
        except (psycopg.Error, PoolTimeout, TimeoutError) as failure:
            raise database_unavailable() from failure
        if row is None:
            self._held.pop(digest, None)
            self._unknown[digest] = time.monotonic() + UNKNOWN_KEY_MEMORY_S
            if len(self._unknown) > UNKNOWN_KEYS_REMEMBERED_MAX:
                self._unknown.popitem(last=False)
            return None
        try:
            policy = self._documents.decode(row[0])
        except msgspec.DecodeError as failure:
            raise database_unavailable() from failure
        self._held[digest] = (policy, time.monotonic())
        if len(self._held) > POLICY_CACHE_ENTRIES_MAX:
            self._held.popitem(last=False)
        return policy
