"""One HTTP/1.1 connection to one server: a request out, a response in.

Guarantees: reading pauses while `BUFFERED_BYTES_MAX` wait to be taken, so a slow reader slows the
server; a connection is reusable only when its response was read to the end and nothing else came;
every wait ends by its deadline, which only a body that goes on moves; a head, and whatever frames a
body, is bounded in bytes. Whoever waits is woken once for what it waits for (the head, some body,
or the whole answer), not once per packet.

A connection has one timer. It is not moved with every deadline: it fires at the latest one it was
armed for, looks, and arms itself again for what is left, so a stream of a thousand chunks touches
it once in an idle time.

Parsing is httptools'. Knows nothing of pools, retries or Triton.
"""

import asyncio
from typing import Final

import httptools

from meterplane.kernel.limits import HEADER_BYTES_MAX
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable

BUFFERED_BYTES_MAX = 256 * 1024
HEAD_BYTES_MAX = HEADER_BYTES_MAX  # Triton's own heads are below 300 bytes

NEVER = float("inf")

# What a request waits for. Plain integers: an enum's members cost a look-up each, in every packet.
HEAD: Final = 0
BODY: Final = 1  # some bytes of it, or its end
WHOLE: Final = 2  # head and body to the end


class Connection(asyncio.Protocol):
    """Use by one request at a time: `ask`; `more` and `take` in turn if only the head was wanted.

    `chunks` are what has arrived of the body and was not taken.
    """

    __slots__ = (
        "_buffered_bytes",
        "_bytes_max",
        "_deadline",
        "_failure",
        "_framing_bytes",
        "_idle_timeout_s",
        "_kept_alive",
        "_loop",
        "_overrun",
        "_parser",
        "_paused",
        "_sized",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_want",
        "chunks",
        "complete",
        "head_complete",
        "headers",
        "idle_since",
        "lost",
        "received_any",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._deadline = NEVER
        self.lost = False
        self._failure: str | None = None
        self.chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._paused = False
        self._kept_alive = False
        self._overrun = False
        self._idle_timeout_s = 0.0
        self._bytes_max = 0
        self._want: int = HEAD
        self._framing_bytes = 0  # read since the body went on: a head, chunk sizes, trailers
        self._sized = False
        self.received_any = False
        self.idle_since = 0.0  # set by whoever keeps it
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head_complete = False
        self.complete = True  # nothing was asked yet: whatever comes is too much

    # --- the request's side

    def ask(
        self,
        writes: tuple[bytes, ...],
        want: int,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        bytes_max: int,
    ) -> asyncio.Future[None]:
        """Send one request. The future is done with the head of its answer, or the `WHOLE` of it.

        The connection must be fresh or `reusable`. One clock runs for the whole head: a server
        that drips it does not start the clock again. A body that is to come whole must keep coming
        within `idle_timeout_s` and end within `bytes_max`. Raises `TritonUnavailable` when it was
        closed before any byte of an answer; the future fails with that, `TritonTimeout` or
        `TritonBroken`. Whoever's wait fails or is cancelled aborts the connection.
        """
        transport = self._transport
        if self.lost or transport is None:
            raise TritonUnavailable
        self._want = want
        self._idle_timeout_s = idle_timeout_s
        self._bytes_max = bytes_max
        self._framing_bytes = 0
        self._sized = False
        self.received_any = False
        self.status = 0
        self.headers = {}
        self.head_complete = False
        self.complete = False
        for piece in writes:
            transport.write(piece)
        loop = self._loop
        now = loop.time()
        self._deadline = now + first_byte_timeout_s
        # Early enough for the body's waits, which follow: the timer need not be moved for them.
        wakes_at = now + min(first_byte_timeout_s, idle_timeout_s)
        if wakes_at < self._timer_at:
            self._arm(wakes_at)
        self._waiter = waiter = loop.create_future()
        return waiter

    def more(self) -> asyncio.Future[None] | None:
        """To be waited for when nothing of the body is there; None at its end.

        The future fails with `TritonTimeout` or `TritonBroken`. The deadline runs only while
        somebody waits: a caller that takes its time does not bring the server into default.
        """
        if self.complete:
            return None
        if self._failure is not None:
            raise TritonBroken(self._failure)
        loop = self._loop
        self._want = BODY
        self._deadline = wakes_at = loop.time() + self._idle_timeout_s
        if wakes_at < self._timer_at:
            self._arm(wakes_at)
        self._waiter = waiter = loop.create_future()
        return waiter

    def take(self) -> bytes:
        """What has arrived of the body, without waiting."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks = []
        self._buffered_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            if not self.lost:
                self._transport.resume_reading()
        return data

    def peek(self) -> bytes:
        """The first bytes of the body, if they have arrived; they stay."""
        return self.chunks[0] if self.chunks else b""

    @property
    def reusable(self) -> bool:
        """True when the last response ended, was taken, and the server takes another request."""
        return (
            self.complete
            and self._kept_alive
            and not self.lost
            and not self._overrun
            and not self.chunks
            and self._failure is None
        )

    def abort(self) -> None:
        """Close at once. For an inference server this is how a request is cancelled."""
        self.lost = True
        self._waiter = None
        if self._transport is not None:
            self._transport.abort()

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.head_complete and not self._sized and self._failure is None and exc is None:
            self.complete = True  # a body without length or chunks ends with its connection
        if not self.complete and self._failure is None:
            self._failure = "the connection was closed before the end"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self.complete:
            # Nothing was asked: whatever this is, it must not become the next answer.
            self._fail("it sent data nobody asked for")
            return
        self.received_any = True
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self._fail(f"it is not HTTP ({problem})")
            return
        if self.complete:
            self._wake()
        elif self._framing_bytes > HEAD_BYTES_MAX:
            # The parser holds a line until it ends, and copies it with every read.
            what = "what frames its body" if self.head_complete else "its head"
            self._fail(f"{what} is larger than {HEAD_BYTES_MAX} bytes")
        elif not self.head_complete:
            return
        elif self._want == WHOLE:
            if self._buffered_bytes > self._bytes_max:
                self._fail(f"it is larger than {self._bytes_max} bytes")
            if not self._framing_bytes:  # trailers that drip buy no time
                self._deadline = self._loop.time() + self._idle_timeout_s
        else:
            if self._want == HEAD or self.chunks:
                self._wake()
            if self._buffered_bytes > BUFFERED_BYTES_MAX and not self._paused:
                self._pause()

    def _pause(self) -> None:
        if self._transport is not None and not self.lost:
            self._paused = True
            self._transport.pause_reading()

    def _fail(self, failure: str) -> None:
        """Of no more use. Who waits hears of it now, the transport's end comes later."""
        if self._failure is None:
            self._failure = failure
        self._wake()
        self.abort()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        self._waiter = None
        if waiter.done():
            return
        want = self._want
        if self.complete or (want == HEAD and self.head_complete) or (want == BODY and self.chunks):
            waiter.set_result(None)  # a failure after what was wanted is for whoever reads on
        elif self.received_any:
            waiter.set_exception(TritonBroken(self._failure or "it ended early"))
        else:
            waiter.set_exception(TritonUnavailable())

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """The timer fired: the deadline has come, or moved on, or nobody waits."""
        self._timer = None
        self._timer_at = NEVER
        waiter, deadline = self._waiter, self._deadline
        if waiter is None or self.lost:
            return
        if self._loop.time() < deadline:
            self._arm(deadline)
        else:
            self._waiter = None
            if not waiter.done():
                waiter.set_exception(TritonTimeout())

    # --- the parser's side. It reads on after the end of a response, into what it takes for the
    # next one: nothing of that may touch this one, and the connection is of no more use.

    def on_message_begin(self) -> None:
        self._overrun = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._overrun or self.head_complete:  # another response's, or a trailer
            return
        name = name.lower()
        if name == b"content-length" or name == b"transfer-encoding":
            self._sized = True
        self.headers[name] = value

    def on_headers_complete(self) -> None:
        if not self._overrun:
            self.status = status = self._parser.get_status_code()
            self.head_complete = status >= 200
            if self.head_complete:  # interim answers without end are a head without end
                self._framing_bytes = 0

    def on_body(self, body: bytes) -> None:
        if not self._overrun:
            self.chunks.append(body)
            self._buffered_bytes += len(body)
            self._framing_bytes = 0

    def on_message_complete(self) -> None:
        if self._overrun:
            return
        if self.head_complete:
            self.complete = True
            # Only here: once this returns, the parser has forgotten the length, and says no.
            self._kept_alive = self._parser.should_keep_alive()
        else:
            self.headers = {}  # an interim response (1xx); the real one follows
            self._sized = False
