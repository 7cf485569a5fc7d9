"""The HTTP/1.1 server side of one connection, over httptools: bytes to exchanges, answers to bytes.

Why not a server library: behind uvicorn the same work costs 13 us more of every request, a third of
what a request may cost in all (decisions/0008). What that hands to us is held here and proven byte
by byte in `tests/gateway/test_http1.py`.

Guarantees: a request reaches a handler once, in the order of its connection; its answer is framed
by length or by chunks, never both; heads are bounded in bytes and lines, a body in bytes, each in
time; nothing a caller sends can be read as two requests by us and one by somebody else (a length
and chunks together, a length twice, a bare line end are refused, and the connection with them);
whoever stops reading is waited for, then cut; whoever leaves cancels the work.

One sweep a second (`server.py`) enforces every wait, so that a request costs no timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import httptools

from meterplane.gateway.exchange import REASONS, Exchange
from meterplane.kernel.limits import HEADER_BYTES_MAX, HEADER_LINES_MAX

HEAD_TIMEOUT_S = 20.0  # from the connection, or a head's first byte, to its last
KEEP_ALIVE_S = 75.0  # between two requests: above the 60 s of the common load balancers
SLOW_READER_S = 30.0  # how long a caller may leave our answer in the socket
PIPELINED_MAX = 32  # requests that wait for the one before them, from one read

LINGER_S = 2.0  # for a caller who still sends a body that was refused
URL_BYTES_MAX = 4096  # a path, and a query of a list's filters
_HEAD_TOO_LARGE = f"the head is larger than {HEADER_BYTES_MAX} bytes or {HEADER_LINES_MAX} lines"

Start = Callable[[Exchange], None]


class HttpConnection(asyncio.Protocol):
    """One caller's connection. `start` begins to answer an exchange, in a task of its own."""

    __slots__ = (
        "_complete",
        "_drained",
        "_exchange",
        "_head_bytes",
        "_header_bytes",
        "_headers",
        "_in_head",
        "_parser",
        "_paused_reading",
        "_pipeline",
        "_start",
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
        self._head_bytes = 0
        self._header_bytes = 0
        self._in_head = True
        self._paused_reading = False
        self._drained: asyncio.Future[None] | None = None

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.connections.add(self)
        self.deadline = time.monotonic() + HEAD_TIMEOUT_S

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.transport = None
        self._pipeline.clear()
        self.resume_writing()
        if self.current is not None:
            self.current.leave()
        if self._exchange is not None and self._exchange is not self.current:
            self._exchange.leave()

    def data_received(self, data: bytes) -> None:
        if self.closing and self._exchange is None:
            return  # whatever this is, it comes after the last request we take
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else: the request is answered as any other, and is the last.
            self.closing = True
            if self.current is not None:
                self.current.last = True
            return
        except httptools.HttpParserError as problem:
            why = problem.__context__
            status = why.status if isinstance(why, _Refused) else 400
            self._refuse(status, f"This is not a request we can read: {why or problem}.")
            return
        if self._in_head:
            # A line without end is counted by what was read: one read bounds the overrun.
            if self._head_bytes > HEADER_BYTES_MAX:
                self._refuse(431, _HEAD_TOO_LARGE)
        elif self._exchange is not None and not self._exchange.taken:
            self._take(self._exchange)  # it may be refused before its body is all here

    def eof_received(self) -> bool:
        return False  # a caller that closes its side has left

    def pause_writing(self) -> None:
        self.writable = False
        self.deadline = time.monotonic() + SLOW_READER_S

    def resume_writing(self) -> None:
        self.writable = True
        if self.current is not None:
            self.deadline = self.current.deadline
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_bytes = 0
        if not self._in_head:
            self._head_bytes = 0
            self._in_head = True
        if self.current is None:
            self.deadline = time.monotonic() + HEAD_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_BYTES_MAX:
            raise _Refused(f"its target is longer than {URL_BYTES_MAX} bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _ONCE:
                raise _Refused(f"the header {name.decode()} is there twice")
            value = headers[name] + b", " + value
        headers[name] = value
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX or len(headers) > HEADER_LINES_MAX:
            raise _Refused(_HEAD_TOO_LARGE, 431)

    def on_headers_complete(self) -> None:
        if not self._in_head:
            return  # the end of trailers
        self._in_head = False
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Refused(f"its version is {version[:8]}")
        if version == "1.1" and b"host" not in self._headers:
            raise _Refused("the header host is missing")
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):
            path = _path_of(path)
        self._exchange = Exchange(
            self, parser.get_method(), path, query, self._headers, chunked=version == "1.1"
        )
        if not parser.should_keep_alive():
            self._exchange.last = True
        if len(self._pipeline) >= PIPELINED_MAX:
            raise _Refused("too many requests wait for their turn")

    def on_body(self, body: bytes) -> None:
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
        if not exchange.complete:
            # What is left of a body that was refused would be read as the next request. It is
            # taken and dropped for a moment: closing on unread bytes resets the connection, and the
            # caller would never read why.
            self.closing = True
            self._exchange = None
            transport.write_eof()
            self.resume_reading()
            self.deadline = time.monotonic() + LINGER_S
        elif self.closing:
            transport.close()
            self.deadline = time.monotonic() + SLOW_READER_S
        elif self._pipeline:
            self._begin(self._pipeline.popleft())
        else:
            self.resume_reading()
            self.deadline = time.monotonic() + KEEP_ALIVE_S

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

    # --- what the sweep asks

    def overdue(self, now: float) -> None:
        """The deadline has passed: whoever we waited for is not waited for any longer."""
        self.deadline = 0.0
        current = self.current
        if not self.writable or self.transport is None or self.transport.is_closing():
            self.abort()
        elif current is not None:
            current.expire(now)
        elif self._in_head and self._head_bytes and not self.closing:
            self._refuse(408, "The request's head took too long to arrive.")
        else:
            self.transport.close()

    def close_when_idle(self) -> None:
        """Take no further request; close now when none is being answered."""
        self.closing = True
        if self.current is None and self.transport is not None:
            self.transport.close()

    def _refuse(self, status: int, why: str) -> None:
        """Not a request at all: said in a shape every client can show, then closed."""
        self.closing = True
        self._exchange = None
        if self.transport is None:
            return
        if self.current is not None:
            return  # an answer is on its way; the connection ends with it
        body = b'{"error":"' + why.replace("\\", "").replace('"', "'").encode() + b'"}'
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s"
            % (status, REASONS.get(status, b"Bad Request"), len(body), body)
        )
        self.transport.close()


class _Refused(Exception):
    """Raised inside the parser's callbacks; it arrives as a parser error with this as context."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


# Headers that decide who calls or where a message ends: two of them are two meanings.
_ONCE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"inference-header-content-length",
        b"transfer-encoding",
    }
)


def _path_of(target: bytes) -> bytes:
    """The path of a request target in absolute form (`http://host/path`)."""
    try:
        return httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError:
        raise _Refused("its target is not a path") from None
