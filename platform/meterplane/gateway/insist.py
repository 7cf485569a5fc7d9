"""Calls to Redis that must happen in the end: repeated until it answers.

Only for calls that may happen twice: a release finds its reservation once, a credit knows its
grant's id. Without this a Redis that stalls for a moment would withhold what was reserved, and what
was granted, until the month is over.

What is not through when this process ends, or `KEEP_S` after, is lost: it withholds budget, it
never adds any.
"""

import asyncio
import contextlib
import time
from collections import deque

from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, Script
from meterplane.kernel.limits import RESERVATION_TTL_S

PAUSE_S = 0.5
KEEP_S = RESERVATION_TTL_S  # later, a reservation has gone by itself
OWED_MAX = 65_536  # 65,536 x ~1 kB = 64 MB; the oldest go first


class Insist:
    """What one worker owes to Redis."""

    def __init__(self, calls: LuaCalls) -> None:
        self._calls = calls
        self._owed: deque[tuple[float, Script, list[str], list[str]]] = deque(maxlen=OWED_MAX)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to repeat. Needs a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """One last try."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(LuaUnavailable):
            await self._pay()

    def owe(self, script: Script, keys: list[str], arguments: list[str]) -> None:
        """Have this called after a pause, and again until Redis answers."""
        self._owed.append((time.monotonic() + KEEP_S, script, keys, arguments))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            # First the pause: a call that timed out may still stand in Redis' own queue, and its
            # release must not overtake it.
            await asyncio.sleep(PAUSE_S)
            with contextlib.suppress(LuaUnavailable):
                await self._pay()

    async def _pay(self) -> None:
        """All that is owed, oldest first. Raises `LuaUnavailable`; the rest stays owed."""
        while self._owed:
            until, script, keys, arguments = self._owed[0]
            if time.monotonic() < until:
                await self._calls.call(script, keys, arguments)
            self._owed.popleft()
        self._wake.clear()
