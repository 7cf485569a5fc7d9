"""Lua calls to Redis, combined: calls that arrive while one is in flight leave together.

One connection, whose trips Redis answers in turn: what reserves is never overtaken by what gives
back. Fewer, larger trips cost the gateway less; so a second one leaves only when enough calls wait
to keep Redis at work while this worker reads what the first one brought. Calls of one round of the
event loop leave together, written from the loop itself: no task stands between a caller and the
socket.

Callers wait on futures, so a caller that is cancelled never touches the connection and can never
leave another's answer in it; its call is made all the same. A Redis that does not answer a trip
within `timeout_s` is down for us: its connection is dropped and everyone in that trip is
told. Whoever still waits is in the next trip, on a new connection. No call is repeated here (an
admission that was answered into a broken connection has reserved), but for one case: a script that
Redis says it does not have did nothing, so it is loaded and called again, once.
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import hiredis

from meterplane.gateway.redis_connection import RedisConnection, connect, pack, parse_address
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import ADMISSION_TIMEOUT_S

log = logging.getLogger("meterplane.gateway")

CALLS_PER_TRIP_MAX = 256  # x ~1 kB = 256 kB: what a socket's buffers hold
TRIPS_MAX = 2  # one that Redis works on, one that it finds when it is done
SECOND_TRIP_CALLS_MIN = 8
CALLS_WAITING_MAX = 4096  # 16 trips: at 1 ms each the last waits 16 ms, else Redis is down anyway
COMPLAINT_PAUSE_S = 1.0
CONNECT_TIMEOUT_S = 2.0  # who asks meanwhile is told in time all the same
LAST_LOOK_S = 0.001  # any time lets the loop read what has arrived before this timer is due
_FOLDER = Path(__file__).parent

Unanswered = Callable[[bytes], None]


class Together(Protocol):
    """Calls of one script that can be made as one, one after the other. Compared by identity."""

    def command(self, parts: Sequence[Any]) -> bytes:
        """The one call, as Redis reads it."""
        ...

    def answers(self, answer: Any) -> list[Any]:
        """What it answered, of each part."""
        ...


# What is asked together with others, or None; the command, or the part of one; who waits for it.
_Call = tuple[Together | None, Any, "asyncio.Future[Any]", Unanswered | None]


class LuaUnavailable(WorldError):
    """Redis did not answer. Nothing is known about the call: it may have happened."""

    def __init__(self) -> None:
        super().__init__(
            "admission_unavailable",
            "Budgets cannot be checked just now, so nothing is admitted. Try again shortly.",
            retry_after_s=1,
        )


class Script:
    """A Lua script, called by its SHA; `Script.beside_us` reads one from this folder."""

    def __init__(self, source: str) -> None:
        self.source = source
        # Not a secret: Redis names scripts so.
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def beside_us(cls, name: str) -> "Script":
        return cls((_FOLDER / name).read_text())

    def command(self, keys: Sequence[str], arguments: Sequence[str]) -> bytes:
        """The call as Redis reads it."""
        return pack("EVALSHA", self.sha, str(len(keys)), *keys, *arguments)


class _Trip:
    """Calls that left together."""

    __slots__ = ("commands", "deadline", "overdue", "repeats")

    def __init__(self, calls: list[_Call], deadline: float, *, repeats: bool = False) -> None:
        self.commands = _by_command(calls)
        self.deadline = deadline
        self.repeats = repeats  # the second time: their script was not there
        self.overdue = False  # the deadline has passed, and its answers are looked for

    def calls(self) -> list[_Call]:
        """All of them, in the order in which Redis is asked."""
        return [call for calls in self.commands for call in calls]


class LuaCalls:
    """One worker's connection to the admission Redis. Raises `AddressInvalid` for a bad URL."""

    def __init__(
        self, url: str, scripts: Sequence[Script], timeout_s: float = ADMISSION_TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._address = parse_address(url)
        self._loads = tuple(pack("SCRIPT", "LOAD", script.source) for script in scripts)
        self._waiting: list[_Call] = []
        self._trips: deque[_Trip] = deque()  # under way, in the order of their answers
        self._leaving = False  # `_leave` is due in this round of the loop
        self._timer: asyncio.TimerHandle | None = None
        self._connection: RedisConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._complain_after = 0.0
        self._answering_since = 0.0  # monotonic; of the present connection
        self.trips = 0
        self.calls = 0
        self.failed_trips = 0
        self.connections = 0

    def start(self) -> None:
        """Connect ahead of the first call. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        if self._connection is None and self._connecting is None and not self._closed:
            self._connecting = self._loop.create_task(self._connect())

    async def close(self) -> None:
        """Make the calls that wait, within one timeout; who then still waits is told."""
        deadline = time.monotonic() + self._timeout_s
        while (pending := self._pending()) and time.monotonic() < deadline:
            await asyncio.wait([pending[-1][2]], timeout=deadline - time.monotonic())
            await asyncio.sleep(0)  # a cancelled caller's future is done before its call is
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            self._connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        unanswered = self._pending()
        self._trips.clear()
        self._waiting = []
        for call in unanswered:
            _fail(call)
        await asyncio.sleep(0)  # the transport says goodbye

    def _pending(self) -> list[_Call]:
        return [call for trip in self._trips for call in trip.calls()] + self._waiting

    def answering_for_s(self) -> float:
        """How long ago Redis let the present connection in; 0 without one."""
        if self._connection is None or self._connection.lost:
            return 0.0
        return time.monotonic() - self._answering_since

    def ask(self, command: bytes) -> "asyncio.Future[Any]":
        """The answer to come. Awaiting it raises `LuaUnavailable`: the call may have happened."""
        return self._put((None, command, self._loop.create_future(), None))

    def ask_together(self, together: Together, part: Any) -> "asyncio.Future[Any]":
        """Like `ask`, for a call that is made as one with what is `together` with it."""
        return self._put((together, part, self._loop.create_future(), None))

    def tell(self, command: bytes, unanswered: Unanswered) -> "asyncio.Future[Any]":
        """Have a call made; `unanswered(command)` is called if it may not have happened.

        The future is done when either is so, and never raises. Nobody needs to wait for it.
        """
        return self._put((None, command, self._loop.create_future(), unanswered))

    def tell_together(
        self, together: Together, part: Any, unanswered: Unanswered
    ) -> "asyncio.Future[Any]":
        """Like `tell`; `unanswered` is given the call of this part alone."""
        return self._put((together, part, self._loop.create_future(), unanswered))

    def _put(self, call: _Call) -> "asyncio.Future[Any]":
        future = call[2]
        if len(self._waiting) >= CALLS_WAITING_MAX or self._closed:
            _fail(call)
            return future
        self._waiting.append(call)
        if not self._leaving and self._may_leave():
            self._leave_soon()
        return future

    def _may_leave(self) -> bool:
        if not self._trips:
            return bool(self._waiting)
        return (
            len(self._waiting) >= SECOND_TRIP_CALLS_MIN
            and len(self._trips) < TRIPS_MAX
            and self._connection is not None
        )

    def _leave_soon(self) -> None:
        self._leaving = True
        self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        """Send what waits: in one trip, or in two that keep Redis and this worker at work."""
        self._leaving = False
        if self._closed:
            return
        if not self._trips and len(self._waiting) >= 2 * SECOND_TRIP_CALLS_MIN:
            self._send_off(len(self._waiting) // 2)
        if self._may_leave():
            self._send_off(len(self._waiting))

    def _send_off(self, count: int) -> None:
        count = min(count, CALLS_PER_TRIP_MAX)
        calls, self._waiting = self._waiting[:count], self._waiting[count:]
        trip = _Trip(calls, time.monotonic() + self._timeout_s)
        self._trips.append(trip)
        self.trips += 1
        self.calls += count
        if self._timer is None:
            # One timer at a time, moved on when it fires: most trips end long before it and
            # neither start nor stop one.
            self._timer = self._loop.call_later(self._timeout_s, self._watch)
        if self._connection is None or self._connection.lost:
            self._connection = None
            self.start()
        else:
            self._send(self._connection, trip)

    def _send(self, connection: RedisConnection, trip: _Trip) -> None:
        commands = [_command(calls) for calls in trip.commands]
        if trip.repeats:
            commands = [*self._loads, *commands]
        connection.ask(b"".join(commands), len(commands), self._arrived)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await connect(self._address, self._loads)
        except Exception as problem:
            # Whatever it was: nobody else tells those who wait for this connection.
            self._connecting = None
            self._fail_trips(f"{type(problem).__name__}: {problem}")
            return
        self.connections += 1
        self._connecting, self._connection = None, connection
        self._answering_since = time.monotonic()
        for trip in self._trips:
            self._send(connection, trip)

    def _watch(self) -> None:
        self._timer = None
        if not self._trips:
            return
        trip = self._trips[0]
        left_s = trip.deadline - time.monotonic()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._watch)
        elif not trip.overdue:
            # This worker may be what was late: on uvloop timers come before what has arrived.
            trip.overdue = True
            self._timer = self._loop.call_later(LAST_LOOK_S, self._watch)
        elif self._connection is not None:
            self._connection.abort()  # it tells us that nothing arrived
        else:
            self._fail_trips("no connection in time")

    def _arrived(self, answers: list[Any] | None) -> None:
        """All answers of the oldest trip, or None: the connection is lost with every trip."""
        if answers is None:
            if self._trips:
                self._fail_trips("the connection was lost, or too slow")
            return
        trip = self._trips.popleft()
        if trip.repeats:
            del answers[: len(self._loads)]
        unknown: list[_Call] = []
        refusal = ""
        for calls, answer in zip(trip.commands, answers, strict=True):
            if not isinstance(answer, hiredis.ReplyError):
                _tell(calls, answer)
            elif not trip.repeats and str(answer).startswith("NOSCRIPT"):
                unknown += calls
            else:
                refusal = str(answer)
                for call in calls:
                    _fail(call)
        if refusal:
            self._complain(f"it refused a call: {refusal}")
        if unknown and self._connection is not None:
            # This Redis was flushed or replaced; what it refused did nothing.
            again = _Trip(unknown, trip.deadline, repeats=True)
            self._trips.append(again)
            self._send(self._connection, again)
        elif self._waiting and not self._leaving:
            # After those who were answered just now: what they ask next can come along.
            self._leave_soon()

    def _fail_trips(self, reason: str) -> None:
        """The connection may hold half an answer: it is not used again."""
        trips = list(self._trips)
        self._trips.clear()
        self._connection = None
        self.failed_trips += len(trips)
        self._complain(reason)
        for trip in trips:
            for call in trip.calls():
                _fail(call)
        if self._waiting and not self._leaving:
            self._leave_soon()

    def _complain(self, reason: str) -> None:
        """Into the log, once in a while: a Redis that is away fails a thousand trips a second."""
        now = time.monotonic()
        if now >= self._complain_after:
            self._complain_after = now + COMPLAINT_PAUSE_S
            log.warning("the admission Redis failed (%d trips): %s", self.failed_trips, reason)


def _by_command(calls: list[_Call]) -> list[list[_Call]]:
    """Which calls are made as one, each where the first of them stands."""
    found: list[list[_Call]] = []
    together: dict[Together, list[_Call]] = {}
    for call in calls:
        group = call[0]
        if group is None:
            found.append([call])
        elif (others := together.get(group)) is not None:
            others.append(call)
        else:
            together[group] = others = [call]
            found.append(others)
    return found


def _command(calls: list[_Call]) -> bytes:
    group, command = calls[0][:2]
    if group is None:
        return command  # type: ignore[no-any-return]
    return group.command([call[1] for call in calls])


def _tell(calls: list[_Call], answer: Any) -> None:
    """Everybody's own answer to those who asked as one."""
    group = calls[0][0]
    answers = [answer] if group is None else group.answers(answer)
    for call, each in zip(calls, answers, strict=True):
        if not call[2].done():
            call[2].set_result(each)


def _fail(call: _Call) -> None:
    future, unanswered = call[2:]
    if unanswered is not None:
        unanswered(_command([call]))
        if not future.done():
            future.set_result(None)
    elif not future.done():
        future.set_exception(LuaUnavailable())
