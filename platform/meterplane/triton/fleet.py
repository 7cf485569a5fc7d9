"""All inference servers of one gateway worker.

A server is one object however many pools name it, so its requests in flight, its idle connections
and its health are counted once. Pools are made when they are first asked for and kept.
"""

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from meterplane.triton.pool import Pool
from meterplane.triton.probes import Probes
from meterplane.triton.server import Server

POOLS_MAX = 1024  # sets of servers the catalog names, old ones included; the oldest gives way


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server, for metrics. `requests` were begun, `failures` counted against its health."""

    url: str
    in_flight: int
    healthy: bool
    ejected_for_s: float
    requests: int
    failures: int
    idle_connections: int


class Fleet:
    """One per worker. `urls` are the gateway's own servers; `tls` replaces the system's trust."""

    def __init__(
        self,
        urls: list[str],
        *,
        tls: ssl.SSLContext | None = None,
        connections_per_server_max: int | None = None,
    ) -> None:
        if not urls:
            raise ValueError("TRITON_URLS names no server")
        self._tls = tls
        self._connections_max = connections_per_server_max
        self._servers: dict[str, Server] = {}
        self._probes = Probes(lambda: self._servers.values())
        self._pools: dict[tuple[str, ...], Pool] = {}
        try:
            self._own = self.pool(urls)
        except ValueError as problem:
            raise ValueError(f"TRITON_URLS: {problem}") from None

    def pool(self, servers: Sequence[str] = ()) -> Pool:
        """The pool of these base URLs; of the gateway's own when there are none.

        Raises `ValueError` for an address that cannot be spoken to.
        """
        if not servers:
            return self._own
        key = tuple(servers)
        pool = self._pools.get(key)
        if pool is None:
            made = {url: self._servers.get(url) or self._make(url) for url in key}
            pool = Pool(list(made.values()), self._probes)
            self._servers |= made
            self._pools[key] = pool
            if len(self._pools) > POOLS_MAX:
                self._forget_oldest()
        return pool

    def start(self) -> None:
        """Begin active health checks, in the background of the running loop."""
        self._probes.start()

    async def close(self) -> None:
        """Stop the checks and close idle connections; answers under way stay their callers'."""
        await self._probes.close()
        for server in self._servers.values():
            server.close_idle()

    def snapshot(self) -> list[ServerState]:
        """Every server, as it is now."""
        now = time.monotonic()
        return [
            ServerState(
                url=server.url,
                in_flight=server.in_flight,
                healthy=server.circuit.closed,
                ejected_for_s=server.circuit.ejected_for_s(now),
                requests=server.requests,
                failures=server.failures,
                idle_connections=server.idle_connections,
            )
            for server in self._servers.values()
        ]

    def _make(self, url: str) -> Server:
        return Server(url, self._trust, self._connections_max)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _forget_oldest(self) -> None:
        """The oldest pool, and servers that no pool names any more. A pool in use still works."""
        oldest = next(key for key, pool in self._pools.items() if pool is not self._own)
        del self._pools[oldest]
        named = {server.url for pool in self._pools.values() for server in pool.servers}
        for url in [url for url in self._servers if url not in named]:
            self._servers.pop(url).close_idle()
