"""One HTTP/1.1 connection to one server: a request out, a response in, in chunks.

Guarantees: reading pauses while `BUFFERED_BYTES_MAX` wait to be taken, so a slow reader slows the
server; a connection is reusable only when its response was read to the end and nothing else came.
Parsing is httptools'. Knows nothing of pools, retries or Triton.
"""

import asyncio
from collections import deque

import httptools

from meterplane.kernel.limits import HEADER_BYTES_MAX
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable

BUFFERED_BYTES_MAX = 256 * 1024
HEAD_BYTES_MAX = HEADER_BYTES_MAX  # Triton's own heads are below 300 bytes


class Connection(asyncio.Protocol):
    """Use by one request at a time: `send`, `head`, then `next_chunk` until None."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._wake: asyncio.Future[None] | None = None
        self._lost = False
        self._failure: str | None = None
        self.idle_since = 0.0  # set by whoever keeps it
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._head_complete = False
        self._sized = False
        self._complete = False
        self._kept_alive = False
        self._overrun = False
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._paused = False
        self.received_any = False

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._head_complete and not self._sized and self._failure is None and exc is None:
            self._complete = True  # a body without length or chunks ends with its connection
        if not self._complete and self._failure is None:
            self._failure = "the connection was closed before the end"
        self._notify()

    def data_received(self, data: bytes) -> None:
        if self._complete:
            # Nothing was asked: whatever this is, it must not become the next answer.
            self._failure = "it sent data nobody asked for"
            self.abort()
            return
        self.received_any = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self._failure = f"it is not HTTP ({problem})"
            self.abort()
        if not self._head_complete:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._failure = f"its head is larger than {HEAD_BYTES_MAX} bytes"
                self.abort()
        self._notify()

    # --- the parser's side. It reads on after the end of a response, into what it takes for the
    # next one: nothing of that may touch this one, and the connection is of no more use.

    def on_message_begin(self) -> None:
        self._overrun = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._overrun or self._head_complete:  # another response's, or a trailer
            return
        name = name.lower()
        self._sized = self._sized or name in (b"content-length", b"transfer-encoding")
        self.headers[name] = value

    def on_headers_complete(self) -> None:
        if not self._overrun:
            self.status = self._parser.get_status_code()
            self._head_complete = self.status >= 200

    def on_body(self, body: bytes) -> None:
        if self._overrun:
            return
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > BUFFERED_BYTES_MAX and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head_complete:
            self._complete = True
            # Only here: once this returns, the parser has forgotten the length, and says no.
            self._kept_alive = self._parser.should_keep_alive()
        else:
            self.headers.clear()  # an interim response (1xx); the real one follows
            self._sized = False

    # --- the request's side

    def send(self, request: bytes) -> None:
        """Write one request. The connection must be fresh or `reusable`."""
        self._reset()
        if self._lost or self._transport is None:
            raise TritonUnavailable
        self._transport.write(request)

    async def head(self, within_s: float) -> int:
        """Wait for the response's status line and headers; answers the status."""
        if not self._head_complete:
            # One clock for the whole head: a server that drips it does not start the clock again.
            try:
                async with asyncio.timeout(within_s):
                    while not self._head_complete:
                        self._check_head_may_come()
                        await self._wait()
            except TimeoutError:
                raise TritonTimeout from None
        return self.status

    def _check_head_may_come(self) -> None:
        if self._failure is not None or self._lost:
            if not self.received_any:
                raise TritonUnavailable
            raise TritonBroken(self._failure or "it ended early")

    async def next_chunk(self, within_s: float) -> bytes | None:
        """The next bytes of the body; None at its end."""
        while not self._chunks:
            if self._complete:
                return None
            if self._failure is not None:
                raise TritonBroken(self._failure)
            try:
                async with asyncio.timeout(within_s):
                    await self._wait()
            except TimeoutError:
                raise TritonTimeout from None
        chunk = self._chunks.popleft()
        self._buffered_bytes -= len(chunk)
        if self._paused and self._buffered_bytes < BUFFERED_BYTES_MAX // 2 and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    @property
    def reusable(self) -> bool:
        """True when the last response ended and the server will take another request."""
        return (
            self._complete
            and not self._lost
            and not self._overrun
            and not self._chunks
            and self._failure is None
            and self._kept_alive
        )

    @property
    def lost(self) -> bool:
        return self._lost

    def abort(self) -> None:
        """Close at once. For an inference server this is how a request is cancelled."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
