"""Whether a worker can take paid requests, and if not, what is missing: `/readyz`.

Missing is what would refuse every request: a journal that cannot write, an admission Redis that
does not answer, policies that can neither be read nor are held; and what must refuse some and does
not: a limiter (`self_test.py`, once on each connection). And that the worker is about to end.
Inference servers are not asked: one that is away concerns its models, and a gateway without any
still answers what it must.

Anybody may ask, so asking costs little: what was found holds for `FOUND_FOR_S`, and who asks
meanwhile shares it. Words and no more are told: no address, no reason of the world's. Whether an
inference server is ready is asked by anybody too, on paths of Triton's: `servers` shares that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.gateway.policies import Policies
from meterplane.gateway.redis_connection import pack
from meterplane.gateway.self_test import limiter_refuses
from meterplane.journal.succession import Journal

FOUND_FOR_S = 0.25  # a probe a second, of several probers, is answered from one look
_PING = pack("PING")
Found = TypeVar("Found")


class Shared(Generic[Found]):
    """One look at a time, however many ask, and at most one in `FOUND_FOR_S`.

    A look is nobody's own: callers who ask and leave at once do not make it begin again.
    """

    def __init__(self) -> None:
        self._looking: asyncio.Task[Found] | None = None
        self._looked_at = 0.0

    async def found(self, look: Callable[[], Awaitable[Found]]) -> Found:
        """What `look` finds, or found just now. Raises what it raises."""
        task = self._looking
        fresh = time.monotonic() - self._looked_at < FOUND_FOR_S
        if task is None or (task.done() and not fresh):
            task = self._looking = asyncio.create_task(self._look(look))
        return await asyncio.shield(task)

    async def _look(self, look: Callable[[], Awaitable[Found]]) -> Found:
        try:
            return await look()
        finally:
            self._looked_at = time.monotonic()


class Readiness:
    """One worker's. `draining` is set when it is told to stop."""

    def __init__(self, calls: LuaCalls, policies: Policies, journal: Journal) -> None:
        self.draining = False
        self.servers: Shared[bool] = Shared()  # some inference server says that it is ready
        self._calls = calls
        self._policies = policies
        self._journal = journal
        self._proven_on = 0  # the connection, by its number, on which the limiter was proven
        self._away: Shared[list[str]] = Shared()

    async def missing(self) -> list[str]:
        """One word for each thing that is missing; none when the worker is ready."""
        away = await self._away.found(self._look)
        here = []
        if self.draining:
            here.append("draining")
        if not self._journal.healthy:
            here.append("journal_unavailable")
        return here + away

    async def _look(self) -> list[str]:
        limiter, policies = await asyncio.gather(self._limiter(), self._policies.readable())
        return limiter if policies else [*limiter, "no_policy"]

    async def _limiter(self) -> list[str]:
        # It connects, too: a worker that is sent no requests would never find Redis again.
        try:
            await self._calls.ask(_PING)
            if self._proven_on != self._calls.connections:
                if not await limiter_refuses(self._calls):
                    return ["limiter_does_not_limit"]
                self._proven_on = self._calls.connections
        except LuaUnavailable:
            return ["admission_unreachable"]
        return []
