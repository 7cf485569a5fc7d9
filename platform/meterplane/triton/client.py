"""Requests to a set of equal inference servers.

Guarantees: the less busy of two random healthy servers is asked; a request is sent again, once,
only when it went out on a kept connection that was closed before any byte of an answer; the
answer is bounded in size and in every wait; leaving a stream early closes its connection, which
cancels the request on the server. A cancelled call never returns its connection to the pool.
"""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from meterplane.kernel.limits import (
    UPSTREAM_FIRST_BYTE_TIMEOUT_S,
    UPSTREAM_IDLE_TIMEOUT_S,
    UPSTREAM_RESPONSE_BYTES_MAX,
)
from meterplane.triton.connection import Connection
from meterplane.triton.failures import TritonBroken, TritonUnavailable
from meterplane.triton.server import Server


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Header names are lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    server: str


class Upstream:
    """An answer that is still coming."""

    def __init__(self, connection: Connection, server: str, idle_timeout_s: float) -> None:
        self._connection = connection
        self._idle_timeout_s = idle_timeout_s
        self.status = connection.status
        self.headers = connection.headers
        self.server = server

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `TritonTimeout` or `TritonBroken`."""
        while (chunk := await self._connection.next_chunk(self._idle_timeout_s)) is not None:
            yield chunk

    async def read(self, bytes_max: int = UPSTREAM_RESPONSE_BYTES_MAX) -> bytes:
        """The whole body. Raises `TritonBroken` when it is larger than `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > bytes_max:
                raise TritonBroken(f"it is larger than {bytes_max} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)


class TritonClient:
    """One worker's client. `urls` are `http://host:port` bases."""

    def __init__(self, urls: list[str]) -> None:
        self._servers = [Server(url) for url in urls]

    async def close(self) -> None:
        """Close idle connections."""
        for server in self._servers:
            server.close()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        first_byte_timeout_s: float = UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        idle_timeout_s: float = UPSTREAM_IDLE_TIMEOUT_S,
    ) -> Response:
        """Send a request and read the whole answer, whatever its status."""
        async with self.stream(
            method,
            path,
            body,
            headers,
            first_byte_timeout_s=first_byte_timeout_s,
            idle_timeout_s=idle_timeout_s,
        ) as upstream:
            content = await upstream.read()
            return Response(upstream.status, upstream.headers, content, upstream.server)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        first_byte_timeout_s: float = UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        idle_timeout_s: float = UPSTREAM_IDLE_TIMEOUT_S,
    ) -> AsyncIterator[Upstream]:
        """Send a request; the block begins when the answer's head is there."""
        server = self._choose()
        server.in_flight += 1
        connection: Connection | None = None
        try:
            request = _serialise(method, path, server.host_header, headers or {}, body)
            connection = await self._begin(server, request, first_byte_timeout_s)
            yield Upstream(connection, server.url, idle_timeout_s)
        finally:
            server.in_flight -= 1
            if connection is not None:
                server.give_back(connection)

    async def _begin(self, server: Server, request: bytes, within_s: float) -> Connection:
        """Send on a kept connection or a new one and wait for the head."""
        while (kept := server.take_idle()) is not None:
            try:
                kept.send(request)
                await kept.head(within_s)
            except TritonUnavailable:
                # Closed by the server while it idled: nothing was received, so nothing was begun
                # that we know of. Others that idled as long are probably closed too.
                kept.abort()
                server.close()
                continue
            except BaseException:
                kept.abort()
                raise
            return kept
        connection = await server.connect()
        try:
            connection.send(request)
            await connection.head(within_s)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _choose(self) -> Server:
        healthy = [server for server in self._servers if server.healthy] or self._servers
        if len(healthy) == 1:
            return healthy[0]
        first, second = random.sample(healthy, 2)
        return first if first.in_flight <= second.in_flight else second


def _serialise(
    method: str, path: str, host: bytes, headers: Mapping[str, str], body: bytes
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1\r\n".encode(),
        b"host: ",
        host,
        b"\r\ncontent-length: ",
        str(len(body)).encode(),
        b"\r\n",
    ]
    for name, value in headers.items():
        lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    lines += [b"\r\n", body]
    return b"".join(lines)
