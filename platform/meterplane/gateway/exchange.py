"""One HTTP exchange on ASGI: a bounded body in, one answer out, and whether the caller is there.

Guarantees: the head is sent once; nothing is sent after the end; a body is bounded in size, also
when it was compressed, and in the time it may take.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar
from uuid import UUID

from meterplane.gateway.compressed import body_too_large, decompress
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

BODY_TIMEOUT_S = 60.0  # 16 MB at 2.2 Mbit/s


class ClientGone(Exception):
    """The caller closed the connection."""


class Exchange:
    """A request being answered. `surface` decides the shape of its errors."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.surface = "openai" if self.path.startswith("/v1/") else "kserve"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id: UUID = uuid7()
        self.status = 0
        self.bytes_out = 0
        self.extra: Headers = []
        self._receive = receive
        self._send = send
        self._ended = False

    async def body(self) -> bytes:
        """The whole body, decompressed. Raises `CallerError` 400, 408, 413, 415; `ClientGone`."""
        declared = self.headers.get(b"content-length", b"0")
        if len(declared) > 12 or (declared.isdigit() and int(declared) > REQUEST_BODY_BYTES_MAX):
            raise body_too_large()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                sent = await self._received()
        except TimeoutError:
            raise CallerError(
                "request_timeout", "The body took too long to arrive.", status=408
            ) from None
        return decompress(sent, self.headers.get(b"content-encoding", b"").strip().lower())

    async def _received(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > REQUEST_BODY_BYTES_MAX:
                raise body_too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def gone(self) -> None:
        """Returns when the caller has left. Only after `body`."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head."""
        self.status = status
        request_id = (b"x-request-id", str(self.request_id).encode())
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, request_id, *self.extra],
            }
        )

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a part of the answer; the last one with `more=False`."""
        self.bytes_out += len(body)
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.begin(status, [*headers, length])
        await self.write(body, more=False)

    @property
    def begun(self) -> bool:
        return self.status != 0

    @property
    def ended(self) -> bool:
        return self._ended


async def while_connected(work: Coroutine[Any, Any, T], exchange: Exchange) -> T:
    """The result of `work`, which is cancelled when the caller leaves. Raises `ClientGone` then."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait({working})
        if not working.cancelled():
            return working.result()  # it finished, or failed, in the same instant
        raise ClientGone
    finally:
        leaving.cancel()
        if not working.done():  # we are being cancelled ourselves
            working.cancel()
            await asyncio.wait({working})
