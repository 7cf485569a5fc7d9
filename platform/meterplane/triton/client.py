"""`TritonClient`: a fleet's own pool, under the names its first callers know. New code: `fleet`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from meterplane.kernel.limits import UPSTREAM_FIRST_BYTE_TIMEOUT_S, UPSTREAM_IDLE_TIMEOUT_S
from meterplane.triton.fleet import Fleet
from meterplane.triton.request import Request
from meterplane.triton.upstream import Response, Upstream

__all__ = ["Response", "TritonClient", "Upstream"]


def _request(method: str, path: str, body: bytes, headers: Mapping[str, str] | None) -> Request:
    pairs = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in (headers or {}).items()]
    return Request(method, path, body, pairs)


class TritonClient:
    """One worker's client. `urls` are bases as `Fleet` takes them."""

    def __init__(self, urls: list[str]) -> None:
        self.fleet = Fleet(urls)

    async def close(self) -> None:
        """Close idle connections."""
        await self.fleet.close()

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
        return await self.fleet.pool().fetch(
            _request(method, path, body, headers),
            first_byte_timeout_s=first_byte_timeout_s,
            idle_timeout_s=idle_timeout_s,
        )

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
        upstream = await self.fleet.pool().send(
            _request(method, path, body, headers),
            first_byte_timeout_s=first_byte_timeout_s,
            idle_timeout_s=idle_timeout_s,
        )
        try:
            yield upstream
        finally:
            upstream.close()
