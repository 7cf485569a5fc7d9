"""Calls to Redis that must happen in the end: repeated until it answers.

Only for calls that may happen twice: a release finds its reservation once, a credit knows its
grant's id. Without this a Redis that stalls for a moment would withhold what was reserved, and what
was granted, until the month is over.

A call that timed out may still stand in Redis' own queue, and its release must not overtake it. So
nothing is paid before a pause, and not before the present connection has been answering for as
long: by then a Redis that woke up has read all that an older connection left it.

What is not through when this process ends, or `KEEP_S` after, is lost: it withholds budget, it
never adds any.
"""

import asyncio
import contextlib
import time
from collections import deque

from meterplane.gateway.lua_calls import CALLS_PER_TRIP_MAX, LuaCalls, LuaUnavailable
from meterplane.kernel.limits import RESERVATION_TTL_S

PAUSE_S = 0.5
KEEP_S = RESERVATION_TTL_S  # later, a reservation has gone by itself
OWED_MAX = 65_536  # 65,536 x ~1 kB = 64 MB; the oldest go first


class Insist:
    """What one worker owes to Redis."""

    def __init__(self, calls: LuaCalls) -> None:
        self._calls = calls
        self._owed: deque[tuple[float, bytes]] = deque(maxlen=OWED_MAX)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._being_paid = 0
        self.owed_ever = 0

    @property
    def owed(self) -> int:
        """How many calls are owed now, those among them that are being made."""
        return len(self._owed) + self._being_paid

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

    def owe(self, command: bytes) -> None:
        """Have this called after a pause, and again until Redis answers."""
        self._owed.append((time.monotonic() + KEEP_S, command))
        self.owed_ever += 1
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(PAUSE_S)
            if self._calls.answering_for_s() < PAUSE_S:
                self._calls.start()
                continue
            with contextlib.suppress(LuaUnavailable):
                await self._pay()

    async def _pay(self) -> None:
        """All that is owed, oldest first. Raises `LuaUnavailable`; the rest stays owed."""
        while self._owed:
            trip = [self._owed.popleft() for _ in range(min(len(self._owed), CALLS_PER_TRIP_MAX))]
            now = time.monotonic()
            asked = [(each, self._calls.ask(each[1])) for each in trip if now < each[0]]
            unpaid = [each for each, _ in asked]
            self._being_paid = len(unpaid)
            try:
                answers = await asyncio.gather(*(a for _, a in asked), return_exceptions=True)
                unpaid = [
                    each
                    for (each, _), answer in zip(asked, answers, strict=True)
                    if isinstance(answer, BaseException)
                ]
            finally:
                self._being_paid = 0
                self._owed.extendleft(reversed(unpaid))
            if unpaid:
                raise LuaUnavailable
        self._wake.clear()
