"""One HTTP/1.1 connection to one server: a request out, a response in, in chunks.

Guarantees: reading pauses while `BUFFERED_BYTES_MAX` wait to be taken, so a slow reader slows the
server; a connection is reusable only when its response was read to the end and nothing else came.
Parsing is httptools'. Knows nothing of pools, retries or Triton.
"""

import asyncio
from collections import deque

import httptools

from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable

BUFFERED_BYTES_MAX = 256 * 1024
HEADER_LINES_MAX = 128


class Connection(asyncio.Protocol):
    """Use by one request at a time: `send`, `head`, then `next_chunk` until None."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._wake: asyncio.Future[None] | None = None
        self._lost = False
        self._failure: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._head_complete = False
        self._complete = False
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._paused = False
        self.received_any = False

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
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
        except httptools.HttpParserError as problem:
            self._failure = f"it is not HTTP ({problem})"
            self.abort()
        self._notify()

    # --- the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= HEADER_LINES_MAX:
            raise httptools.HttpParserError("too many headers")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._head_complete = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > BUFFERED_BYTES_MAX and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._complete = True

    # --- the request's side

    def send(self, request: bytes) -> None:
        """Write one request. The connection must be fresh or `reusable`."""
        self._reset()
        if self._lost or self._transport is None:
            raise TritonUnavailable
        self._transport.write(request)

    async def head(self, within_s: float) -> int:
        """Wait for the response's status line and headers; answers the status."""
        while not self._head_complete:
            if self._failure is not None or self._lost:
                if not self.received_any:
                    raise TritonUnavailable
                raise TritonBroken(self._failure or "it ended early")
            await self._wait(within_s)
        return self.status

    async def next_chunk(self, within_s: float) -> bytes | None:
        """The next bytes of the body; None at its end."""
        while not self._chunks:
            if self._complete:
                return None
            if self._failure is not None:
                raise TritonBroken(self._failure)
            await self._wait(within_s)
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
            and not self._chunks
            and self._failure is None
            and self._parser.should_keep_alive()
        )

    @property
    def lost(self) -> bool:
        return self._lost

    def abort(self) -> None:
        """Close at once. For an inference server this is how a request is cancelled."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self, within_s: float) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                await self._wake
        except TimeoutError:
            raise TritonTimeout from None
        finally:
            self._wake = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
