"""uvicorn's HTTP/1.1 protocol with bounds on a request's head: its size and the time it may take.

Neither the server nor its parser has any, so one connection that sends a header without end would
take all memory, and thousands that send nothing would hold all descriptors.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meterplane.kernel.limits import HEADER_BYTES_MAX

HEAD_TIMEOUT_S = 20.0  # from the connection, or a head's first byte, to its last


class BoundedHttp(HttpToolsProtocol):
    """A head beyond its bounds is answered 400 and its connection closed."""

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        # One read is bounded by the transport, so the overrun is too.
        if self._in_head and self._head_bytes > HEADER_BYTES_MAX:
            self._refuse(f"The request's head is larger than {HEADER_BYTES_MAX} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:
            self._head_bytes = 0
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._in_head = True
        self._deadline = self.loop.call_later(
            HEAD_TIMEOUT_S, self._refuse, "The request's head took too long to arrive."
        )

    def _head_is_there(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, why: str) -> None:
        self._head_is_there()
        transport: Any = self.transport
        if not transport.is_closing():
            self.send_400_response(why)
