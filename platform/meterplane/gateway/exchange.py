"""One HTTP exchange: a bounded body in, one answer out, and whether the caller is still there.

Guarantees: the head is sent once; nothing is sent after the end; a body is bounded in size, also
when it was compressed, and in the time it may take, and all bodies of a worker together in what
they hold (`body_budget.py`); a caller who leaves, or whose time is up, cancels the task that
answers, once, with the reason in `cut`; so does `revocation.py`.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from meterplane.gateway.addresses import peer_of
from meterplane.gateway.answer_head import REASONS
from meterplane.gateway.body_budget import BODIES, too_many_large
from meterplane.gateway.compressed import body_too_large, body_too_slow, decompress
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.limits import (
    BODY_SMALL_BYTES_MAX,
    REQUEST_BODY_BYTES_MAX,
    STREAM_DURATION_S_MAX,
)

if TYPE_CHECKING:
    from meterplane.gateway.http1 import HttpConnection
    from meterplane.gateway.run import Run
    from meterplane.gateway.trace import Trace

BODY_TIMEOUT_S = 60.0  # 16 MB at 2.2 Mbit/s
PARTS_MAX = 4096  # kept apart; chunks of one byte each would cost 40 times what they carry
BODY_WAITING_BYTES_MAX = 256 * 1024  # of a body nobody has asked for yet

JSON = b"content-type: application/json\r\n"


class ClientGone(Exception):
    """The caller closed the connection."""


class Exchange:
    """A request being answered. `surface` decides the shape of its errors.

    `path` is the target as it was sent, without its query: nothing is unescaped, so an escaped
    path is simply one that does not exist. Header names are lower case, repeated ones are joined.
    `extra` are header lines for the answer, each ending in CR LF.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_crowded",
        "_ended",
        "_head",
        "_held_bytes",
        "_parts",
        "_size",
        "_spoilt",
        "_streaming",
        "_waiter",
        "bytes_out",
        "complete",
        "cut",
        "deadline",
        "extra",
        "headers",
        "last",
        "method",
        "path",
        "peer",
        "query",
        "received_at",
        "refusal",
        "request_id",
        "request_name",
        "run",
        "runs_on",
        "status",
        "surface",
        "taken",
        "task",
        "trace",
    )

    def __init__(
        self,
        connection: "HttpConnection",
        method: bytes,
        path: bytes,
        query: bytes,
        headers: dict[bytes, bytes],
        *,
        chunked: bool,
    ) -> None:
        self.method = method.decode("latin-1")
        self.path = path.decode("latin-1")
        self.query = query
        self.headers = headers
        self.peer = peer_of(connection.transport)
        self.surface: Literal["openai", "kserve"] = (
            "openai" if path.startswith(b"/v1/") else "kserve"
        )
        self.request_id: UUID = uuid7()
        self.request_name = str(self.request_id)
        self.received_at = 0.0  # monotonic, when the whole request was here
        self.status = 0
        self.bytes_out = 0
        self.extra = b""
        self.complete = False  # the body is here, all of it
        self.taken = False  # it has its place in the connection's order
        self.last = False  # the caller wants no other answer on this connection
        self.cut: Literal["", "left", "late", "refused"] = ""
        self.refusal: CallerError | None = None  # what the caller is told where it is "refused"
        self.runs_on = False  # a caller who leaves comes back for it: nothing is cancelled
        self.task: asyncio.Task[None] | None = None
        self.trace: Trace | None = None
        self.run: Run | None = None  # once it is admitted
        self.deadline = time.monotonic() + BODY_TIMEOUT_S
        self._connection = connection
        self._chunked = chunked
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._held_bytes = 0  # of the worker's budget: the body's, until the exchange ends
        self._crowded = False  # there was no room for it among the others
        self._spoilt = ""  # why there will be no more of the body
        self._streaming = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None
        self._ended = False

    # --- what the connection tells

    def feed(self, part: bytes) -> None:
        """Bytes of the body."""
        self._size += len(part)
        if self._size > BODY_SMALL_BYTES_MAX and not self._streaming and not self._has_room():
            self.drop()  # it will be refused
            self._connection.pause_reading()
            self.wake()
            return
        if len(self._parts) < PARTS_MAX:
            self._parts.append(part)
        else:
            self._add_to_last(part)
        if self._size > BODY_WAITING_BYTES_MAX and self._waiter is None:
            self._connection.pause_reading()
        if self._streaming:
            self.wake()

    def _has_room(self) -> bool:
        """Whether a large body is kept: it is not too large, nor are all of them together."""
        if self._size > REQUEST_BODY_BYTES_MAX or self._crowded:
            return False
        self._crowded = not self._hold(self._size)
        return not self._crowded

    def _hold(self, size: int) -> bool:
        if not BODIES.take(size - self._held_bytes):
            return False
        self._held_bytes = size
        return True

    def _give_back(self) -> None:
        BODIES.give_back(self._held_bytes)
        self._held_bytes = 0

    def drop(self) -> None:
        """Nobody will ask for the body."""
        self._parts.clear()
        self._give_back()

    def _add_to_last(self, part: bytes) -> None:
        last = self._parts[-1]
        if not isinstance(last, bytearray):
            last = self._parts[-1] = bytearray(last)
        last += part

    def wake(self) -> None:
        """Something came that somebody may wait for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def spoil(self, why: str) -> None:
        """What came is no body: whoever waits for it is told."""
        self._spoilt = why
        self.drop()
        self.wake()

    def leave(self) -> None:
        """The caller has left: whatever is done for them ends, now or when its time is up."""
        if not self.runs_on:
            self.end_early("left")
            self.drop()
        else:  # no sweep looks at a connection that is gone
            left_s = max(0.0, self.deadline - time.monotonic())
            asyncio.get_running_loop().call_later(left_s, self.expire, self.deadline)

    def expire(self, now: float) -> None:
        """The time of this exchange is up."""
        self.end_early("late")

    def end_early(self, why: Literal["left", "late", "refused"]) -> bool:
        """Cancel whoever answers; False when that was done already, or the answer has ended."""
        if self.cut or self._ended or self.task is None:
            return False
        self.cut = why
        return self.task.cancel()

    # --- the request

    async def body(self) -> bytes:
        """The whole body, decompressed. Raises `CallerError` 400, 408, 413, 415; `ClientGone`.

        `WorldError` 503 when the worker holds too many large ones.
        """
        if not self.complete:
            await self._whole()
        else:
            if self._size > BODY_SMALL_BYTES_MAX:
                self._check()
            # A large one that came faster than it was asked for has paused the connection, which
            # would not tell that its caller leaves.
            self._connection.resume_reading()
        self.received_at = time.monotonic()
        parts, self._parts = self._parts, []
        sent = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        encoding = self.headers.get(b"content-encoding")
        if encoding is None:
            return sent
        plain = await decompress(sent, encoding.strip().lower())
        if len(plain) > BODY_SMALL_BYTES_MAX and not self._hold(len(plain)):
            self._give_back()
            raise too_many_large()
        return plain

    async def _whole(self) -> None:
        declared = self.headers.get(b"content-length", b"0")
        size = int(declared)
        if size > REQUEST_BODY_BYTES_MAX:
            raise body_too_large()
        if size > BODY_SMALL_BYTES_MAX and not BODIES.has_room(size - self._held_bytes):
            self.drop()
            raise too_many_large()
        self._invite()
        while not self.complete:
            self._check()
            await self._wait()
        self._check()

    def _check(self) -> None:
        if self._crowded:
            raise too_many_large()
        if self._size > REQUEST_BODY_BYTES_MAX and not self._streaming:
            raise body_too_large()
        if self._spoilt:
            raise CallerError("invalid_body", self._spoilt)

    async def blocks(self, bytes_max: int, seconds_max: float) -> AsyncIterator[bytes]:
        """The body as it arrives, for whoever passes it on. Raises like `body`.

        Each block may take `BODY_TIMEOUT_S`; none is taken once `seconds_max` are over.
        """
        self._check()
        until = time.monotonic() + seconds_max
        self._streaming = True
        self._give_back()  # only a moment's worth is ever here
        declared = self.headers.get(b"content-length", b"0")
        if int(declared) > bytes_max:
            raise body_too_large(bytes_max)
        self._invite()
        while True:
            if self._size > bytes_max:
                raise body_too_large(bytes_max)
            if time.monotonic() > until and not self.complete:
                raise body_too_slow()
            if self._parts:
                parts, self._parts = self._parts, []
                self._connection.pause_reading()
                yield b"".join(parts)
                self._connection.resume_reading()
                self._set_deadline(BODY_TIMEOUT_S)
            elif self.complete:
                return
            else:
                self._check()
                await self._wait()

    def _invite(self) -> None:
        # HTTP/1.0 knows no such answer, and whoever sent a part of the body waits for none.
        awaited = self.headers.get(b"expect", b"").lower() == b"100-continue"
        if awaited and self._chunked and not self._size:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._connection.resume_reading()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self._connection.resume_reading()
        try:
            await self._waiter
        except asyncio.CancelledError:
            if self.cut == "left":
                raise ClientGone from None
            if self.cut == "late":
                self._uncancel()
                raise body_too_slow() from None
            raise
        finally:
            self._waiter = None

    def _uncancel(self) -> None:
        self.cut = ""
        if self.task is not None:
            self.task.uncancel()

    def allow(self, seconds: float = STREAM_DURATION_S_MAX) -> None:
        """From now on the answer may take this long."""
        self._set_deadline(seconds)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        if self._connection.writable:
            self._connection.deadline = self.deadline

    # --- the answer

    def begin(self, status: int, headers: bytes) -> None:
        """Begin an answer of unknown length; its head leaves with the first `write`."""
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        if not self._chunked:
            self.last = self._connection.closing = True  # its end is the connection's
        self._head = self._make_head(status, headers + framing)

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a part of the answer, the last one with `more=False`; waits for a slow reader."""
        self.bytes_out += len(body)
        out = self._frame(body, more) if self._chunked else body
        if self._head is not None:
            out, self._head = self._head + out, None
        self._ended = not more
        self._connection.write(out)
        if more and not self._connection.writable:
            await self._connection.drain()

    def end_with(self, body: bytes) -> None:
        """Send the last part of a begun answer, without waiting for anyone."""
        self.bytes_out += len(body)
        self._ended = True
        out = self._frame(body, more=False) if self._chunked else body
        if self._head is not None:
            out, self._head = self._head + out, None
        self._connection.write(out)

    @staticmethod
    def _frame(body: bytes, more: bool) -> bytes:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer."""
        head = self._make_head(status, headers + b"content-length: %d\r\n" % len(body))
        self.bytes_out += len(body)
        self._ended = True
        self._connection.write(head if self.method == "HEAD" else head + body)

    def break_off(self) -> None:
        """End a begun answer so that the caller sees that it is not whole."""
        self._ended = True
        self._connection.closing = True
        if not self._chunked:
            self._connection.abort()

    def end(self) -> None:
        """Whoever answered is done: the connection goes on, or ends if no whole answer was sent."""
        if self._held_bytes:
            self._give_back()
        if not self._ended:
            self._ended = True
            self._connection.closing = True
        self._connection.ended(self)

    def _make_head(self, status: int, headers: bytes) -> bytes:
        self.status = status
        return b"HTTP/1.1 %d %b\r\n%bx-request-id: %b\r\n%b%b\r\n" % (
            status,
            REASONS.get(status, b"Unknown"),
            headers,
            self.request_name.encode(),
            self.extra if self.run is None else self.extra + self.run.told(),
            b"connection: close\r\n" if self._connection.closing or not self.complete else b"",
        )

    @property
    def begun(self) -> bool:
        return self.status != 0

    @property
    def ended(self) -> bool:
        return self._ended
