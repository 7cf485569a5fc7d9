"""The HTTP/1.1 server side of one connection, over httptools: bytes to exchanges, answers to bytes.

Why not a server library: behind uvicorn the same work costs 13 us more of every request, a third of
what a request may cost in all (decisions/0008). What that hands to us is held here and proven byte
by byte in `tests/gateway/test_http1.py`.

Guarantees: a request reaches a handler once, in the order of its connection; its answer is framed
by length or by chunks, never both; heads are bounded in bytes and lines, a body in bytes, each in
time; nothing a caller sends can be read as two requests by us and one by somebody else (a length
and chunks together, a length twice, a bare line end are refused, and the connection with them);
what was taken before such bytes is answered; trailers are counted and never become headers; nobody
is asked for more while an answer lies unread; whoever stops reading is waited for, then cut;
whoever leaves cancels the work. One sweep a second (`server.py`) ends every wait: none has a timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import httptools

from meterplane.gateway.answer_head import refusal
from meterplane.gateway.exchange import BODY_TIMEOUT_S, Exchange
from meterplane.gateway.request_head import ONCE, Refused, path_of
from meterplane.kernel.limits import (
    CONNECTIONS_MAX,
    HEADER_BYTES_MAX,
    HEADER_LINES_MAX,
    STREAM_DURATION_S_MAX,
)

HEAD_TIMEOUT_S = 20.0  # from the connection, or a head's first byte, to its last
KEEP_ALIVE_S = 75.0  # between two requests: above the 60 s of the common load balancers
SLOW_READER_S = 30.0  # how long a caller may take nothing of an answer that waits for them
PIPELINED_MAX = 32  # requests that wait for the one before them, from one read
LINGER_S = 2.0  # for a caller who still sends what was refused
TURNED_AWAY_MAX = 512  # above CONNECTIONS_MAX, to be told so: within the descriptors we ask for
URL_BYTES_MAX = 4096  # a path, and a query of a list's filters
_HEAD_TOO_LARGE = f"the head is larger than {HEADER_BYTES_MAX} bytes or {HEADER_LINES_MAX} lines"
_FRAMING_TOO_LARGE = f"a chunk's size line or the trailers exceed {HEADER_BYTES_MAX} bytes"

Start = Callable[[Exchange], None]


class HttpConnection(asyncio.Protocol):
    """One caller's connection. `start` begins to answer an exchange, in a task of its own."""

    __slots__ = (
        "_complete",
        "_drained",
        "_exchange",
        "_framing_bytes",
        "_header_bytes",
        "_headers",
        "_in_head",
        "_parser",
        "_paused_reading",
        "_pipeline",
        "_read_by",
        "_repeats",
        "_start",
        "_turned_away",
        "_unread",
        "_unsent",
        "_url",
        "closing",
        "connections",
        "current",
        "deadline",
        "transport",
        "writable",
    )

    def __init__(self, start: Start, connections: "set[HttpConnection]") -> None:
        self._start = start
        self.connections = connections
        self.transport: asyncio.Transport | None = None
        self.current: Exchange | None = None  # the one being answered
        self.closing = False  # no request after the current one
        self.deadline = 0.0  # when the sweep acts; 0: never
        self.writable = True
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None  # the one being read
        self._pipeline: deque[Exchange] = deque()
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._framing_bytes = 0  # read since the body went on: a head, chunk sizes, trailers
        self._header_bytes = 0
        self._in_head = True
        self._repeats = 0  # header lines that say a name again
        self._paused_reading = False
        self._turned_away = False  # there were too many; it is said to whoever asks
        self._unread = False  # the caller sent more than we take
        self._drained: asyncio.Future[None] | None = None
        self._unsent = 0  # bytes that waited for the caller when the sweep last looked
        self._read_by = 0.0  # when an answer must be read, however steadily that goes on

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.connections.add(self)
        self.deadline = time.monotonic() + HEAD_TIMEOUT_S
        if len(self.connections) > CONNECTIONS_MAX:
            # Said when the request is there: an answer to nothing is an error to some clients.
            self.closing = self._turned_away = True
            self.deadline = time.monotonic() + LINGER_S
            if len(self.connections) > CONNECTIONS_MAX + TURNED_AWAY_MAX:
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.transport = None
        self.resume_writing()
        if self.current is not None:
            self.current.leave()
        self._forget()

    def data_received(self, data: bytes) -> None:
        if self.closing and self._exchange is None:
            # Whatever this is, it comes after the last request we take.
            self._unread = True
            if self._turned_away:
                self._turned_away = False
                self._say(503, "Too many connections are open; try again.")
            return
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else: the request is answered as any other, and is the last.
            self._take_no_more()
            return
        except httptools.HttpParserError as problem:
            why = problem.__context__
            status = why.status if isinstance(why, Refused) else 400
            self._refuse(status, f"This is not a request we can read: {why or problem}.")
            return
        if self._framing_bytes > HEADER_BYTES_MAX:
            # A line without end, of a head, a chunk's size or a trailer: the parser holds it, and
            # copies it with every read. It is counted by what was read: one read is the overrun.
            self._refuse(431, _HEAD_TOO_LARGE if self._in_head else _FRAMING_TOO_LARGE)
        elif not self._in_head and self._exchange is not None and not self._exchange.taken:
            self._take(self._exchange)  # it may be refused before its body is all here

    def eof_received(self) -> bool:
        return False  # a caller that closes its side has left

    def pause_writing(self) -> None:
        self.writable = False
        self._await_reader(SLOW_READER_S)

    def resume_writing(self) -> None:
        self.writable = True
        if self.current is not None:
            self.deadline = self.current.deadline
        elif not self.closing and self.transport is not None:
            self._next()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_bytes = self._repeats = 0
        if not self._in_head:
            self._framing_bytes = 1  # it came with what was before it
            self._in_head = True
        if self.current is None:
            self.deadline = time.monotonic() + HEAD_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_BYTES_MAX:
            raise Refused(f"its target is longer than {URL_BYTES_MAX} bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in ONCE:
                raise Refused(f"the header {name.decode()} is there twice")
            self._repeats += 1
            if len(headers) + self._repeats > HEADER_LINES_MAX:
                raise Refused(_HEAD_TOO_LARGE, 431)
            value = headers[name] + b", " + value
        headers[name] = value
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX or len(headers) > HEADER_LINES_MAX:
            raise Refused(_HEAD_TOO_LARGE, 431)

    def on_headers_complete(self) -> None:
        if not self._in_head:
            return  # the end of trailers
        self._in_head = False
        self._framing_bytes = 0
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(f"its version is {version[:8]}")
        headers = self._headers
        if version == "1.1" and b"host" not in headers:
            raise Refused("the header host is missing")
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            raise Refused("its transfer-encoding is not chunked alone")
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):
            path = path_of(path)
        self._exchange = Exchange(
            self, parser.get_method(), path, query, headers, chunked=version == "1.1"
        )
        self._headers = {}  # trailers are no part of what was asked
        if version == "1.0" or not parser.should_keep_alive():
            self._exchange.last = True
        if len(self._pipeline) >= PIPELINED_MAX:
            raise Refused("too many requests wait for their turn")

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self._exchange is not None:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        self._exchange = None
        if exchange is None:
            return
        exchange.complete = True
        if exchange.taken:
            exchange.wake()
        else:
            self._take(exchange)

    # --- exchanges

    def _take(self, exchange: Exchange) -> None:
        exchange.taken = True
        if self.current is None:
            self._begin(exchange)
        else:
            self._pipeline.append(exchange)
            self.pause_reading()  # one caller's haste must not fill our memory

    def _begin(self, exchange: Exchange) -> None:
        self.current = exchange
        self.deadline = exchange.deadline
        if exchange.last:
            self.closing = True
        self._start(exchange)

    def ended(self, exchange: Exchange) -> None:
        """The answer is written. The next request, or the end of the connection."""
        self.current = None
        transport = self.transport
        if transport is None:
            return
        if not exchange.complete or (self.closing and self._unread):
            # What is left of a refused body would be read as the next request. It is taken and
            # dropped for a moment: closing on unread bytes resets, and nobody would read why.
            self._linger()
        elif self.closing:
            transport.close()
            self._await_reader(SLOW_READER_S)
        else:
            self._next()

    def _next(self) -> None:
        """The request that waits, or one that is still to come; none while an answer lies unread.

        Otherwise whoever sends requests and reads no answers would fill our memory with them.
        """
        now = time.monotonic()
        if not self.writable:
            self.pause_reading()
            self._await_reader(SLOW_READER_S)
        elif self._pipeline:
            exchange = self._pipeline.popleft()
            exchange.deadline = now + BODY_TIMEOUT_S  # the time it waited was not its own
            self._begin(exchange)
        else:
            self.resume_reading()
            self.deadline = now + (HEAD_TIMEOUT_S if self._in_head else KEEP_ALIVE_S)

    def _linger(self) -> None:
        """Close our side, and read for a moment what the caller still sends."""
        self.closing = True
        self._forget()
        self.resume_reading()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
        self._await_reader(LINGER_S)

    def _forget(self) -> None:
        """Nothing that waits, or is still being read, will be answered."""
        if self._exchange is not None:
            self._exchange.drop()
        self._exchange = None
        while self._pipeline:
            self._pipeline.popleft().drop()

    def _take_no_more(self) -> None:
        """What was taken is answered, and then the connection ends."""
        self._unread = True
        if self._pipeline:
            self._pipeline[-1].last = True
        else:
            self.closing = True

    def abort(self) -> None:
        """Cut the connection: the answer so far must not look whole."""
        if self.transport is not None:
            self.transport.abort()

    # --- flow

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; nothing when the caller has left."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the caller has read what waits for it. The sweep cuts one who does not."""
        while not self.writable and self.transport is not None:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def pause_reading(self) -> None:
        """Take no more from the caller for now."""
        if not self._paused_reading and self.transport is not None:
            self._paused_reading = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more again, unless what came already waits for its turn."""
        if self._paused_reading and not self._pipeline and self.transport is not None:
            self._paused_reading = False
            self.transport.resume_reading()

    def _await_reader(self, seconds: float) -> None:
        """Wait for the caller to read what is written: so long for the next bytes of it."""
        now = time.monotonic()
        self.deadline = now + seconds
        self._read_by = now + STREAM_DURATION_S_MAX
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()

    def _reads_on(self, transport: asyncio.Transport, now: float) -> bool:
        """More time for a caller who took some of the answer since the last look: it is billed."""
        unsent = transport.get_write_buffer_size()
        read_by = self._read_by if self.current is None else self.current.deadline
        if unsent >= self._unsent or now >= read_by:
            return False
        self._unsent = unsent
        self.deadline = min(now + SLOW_READER_S, read_by)
        return True

    # --- what the sweep asks

    def overdue(self, now: float) -> None:
        """The deadline has passed: whoever we waited for is not waited for any longer."""
        self.deadline = 0.0
        current, transport = self.current, self.transport
        if transport is None:
            return
        if not self.writable or transport.is_closing():
            if not self._reads_on(transport, now):
                self.abort()
        elif current is not None:
            current.expire(now)
        elif self._in_head and self._framing_bytes and not self.closing:
            self._refuse(408, "The request's head took too long to arrive.")
        else:
            # What waits for a caller who never reads would keep the connection for ever.
            transport.close()
            self._await_reader(LINGER_S)

    def close_when_idle(self) -> None:
        """Take no further request; close now when none is being answered."""
        self.closing = True
        if self.current is None and self.transport is not None:
            self.transport.close()

    def _refuse(self, status: int, why: str) -> None:
        """Not a request at all: said where no answer is on its way, and the connection ends."""
        broken, self._exchange = self._exchange, None
        self._take_no_more()
        if self.current is None:
            self._say(status, why)
        elif broken is not None:  # the one being answered, or one that waits for its turn
            broken.spoil(why)

    def _say(self, status: int, why: str) -> None:
        """A refusal in a shape every client can show."""
        if self.transport is not None:
            self.transport.write(refusal(status, why))
            self._linger()
