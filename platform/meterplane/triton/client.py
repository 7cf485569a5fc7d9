"""Requests to a set of equal inference servers.

Guarantees: the less busy of two random healthy servers is asked, and another one when that cannot
be connected to; a request is sent again, once, only when it went out on a kept connection that was
closed before any byte of an answer; the answer is bounded in size and in every wait; leaving a
stream early closes its connection, which cancels the request on the server. A cancelled call never
returns its connection to the pool.
"""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from meterplane.kernel.invariant import ensure
from meterplane.kernel.limits import (
    UPSTREAM_FIRST_BYTE_TIMEOUT_S,
    UPSTREAM_IDLE_TIMEOUT_S,
    UPSTREAM_RESPONSE_BYTES_MAX,
)
from meterplane.triton.connection import Connection
from meterplane.triton.failures import TritonBroken, TritonUnavailable
from meterplane.triton.server import NotConnected, Server


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

    async def read(self, bytes_max: int | None = None) -> bytes:
        """The whole body. Raises `TritonBroken` when it is larger than `bytes_max`."""
        bytes_max = UPSTREAM_RESPONSE_BYTES_MAX if bytes_max is None else bytes_max
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
        request = _Request(method, path, headers or {}, body)
        server, connection = await self._begin(request, first_byte_timeout_s)
        try:
            yield Upstream(connection, server.url, idle_timeout_s)
        finally:
            server.in_flight -= 1
            server.give_back(connection)

    async def _begin(self, request: "_Request", within_s: float) -> tuple[Server, Connection]:
        """Send to a server that can be connected to and wait for the head."""
        left = list(self._servers)
        while True:
            server = _choose(left)
            server.in_flight += 1
            try:
                return server, await self._send(server, request, within_s)
            except BaseException as problem:
                server.in_flight -= 1
                left.remove(server)
                if not left or not isinstance(problem, NotConnected):
                    raise

    async def _send(self, server: Server, request: "_Request", within_s: float) -> Connection:
        """Send on a kept connection or a new one and wait for the head."""
        if not request.sent and (kept := server.take_idle()) is not None:
            try:
                await request.send(kept, server.host_header, within_s)
            except TritonUnavailable:
                # Closed by the server while it idled: nothing was received, so nothing was begun
                # that we know of. Others that idled as long are probably closed too. From here on
                # only new connections: a request that kills servers must not try every kept one.
                server.close()
            else:
                return kept
        connection = await server.connect()
        await request.send(connection, server.host_header, within_s)
        return connection


class _Request:
    """A request to be sent, and whether it has been before."""

    def __init__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self._first = f"{method} {path} HTTP/1.1\r\nhost: ".encode("ascii")
        lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
        self._rest = b"".join([b"\r\ncontent-length: %d\r\n" % len(body), *lines, b"\r\n"])
        self._body = body
        self.sent = False
        head = self._first + self._rest
        # A line break or space of a caller's making would be a header or request of its making.
        ensure(
            head.count(b"\n") == head.count(b"\r") == 4 + len(lines)
            and path.startswith("/")
            and " " not in path,
            "method, path and headers hold no line break, the path no space",
        )

    async def send(self, connection: Connection, host: bytes, within_s: float) -> None:
        """Send, and wait for the head. Whatever prevents that also closes the connection."""
        self.sent = True
        try:
            connection.send(b"".join((self._first, host, self._rest, self._body)))
            await connection.head(within_s)
        except BaseException:
            connection.abort()
            raise


def _choose(servers: list[Server]) -> Server:
    """The less busy of two random healthy ones; when none is healthy, of any two."""
    healthy = [server for server in servers if server.healthy] or servers
    if len(healthy) == 1:
        return healthy[0]
    first, second = random.sample(healthy, 2)
    return first if first.in_flight <= second.in_flight else second
