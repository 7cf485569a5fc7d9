"""One inference server: its address, its idle connections, and whether it is worth asking."""

import asyncio
import time
from urllib.parse import urlsplit

from meterplane.kernel.limits import UPSTREAM_CONNECT_TIMEOUT_S
from meterplane.triton.connection import Connection
from meterplane.triton.failures import TritonUnavailable

CONNECTIONS_MAX = 512  # per server; each is one request in flight
IDLE_CONNECTIONS_MAX = 128
IDLE_S_MAX = 60.0  # below what stateful firewalls and proxies between forget (350 s and more)
EJECTED_S = 1.0  # after a failed connect, others are asked first for this long


class NotConnected(TritonUnavailable):
    """Nothing was sent: another server may be asked."""


class Server:
    """A pool of connections to one base URL. Raises ValueError if it cannot speak to it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            # Anything else would be spoken to in plain HTTP all the same, at the wrong path.
            raise ValueError(f"TRITON_URLS: {url!r} is not an http://host:port address")
        self.url = url
        self.host = parts.hostname
        self.port = parts.port or 80
        self.host_header = parts.netloc.rpartition("@")[2].encode()
        self.in_flight = 0
        self._ejected_until = 0.0
        self._idle: list[Connection] = []

    @property
    def healthy(self) -> bool:
        return time.monotonic() >= self._ejected_until

    def take_idle(self) -> Connection | None:
        """A connection that was left open, the most recently used first."""
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.idle_since > IDLE_S_MAX:
                connection.abort()
                self.close()  # the others have idled longer
            elif not connection.lost:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises `NotConnected`, and remembers that it failed to connect."""
        if self.in_flight > CONNECTIONS_MAX:
            raise NotConnected("every connection is busy")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(UPSTREAM_CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(Connection, self.host, self.port)
        except (OSError, TimeoutError):
            self._ejected_until = time.monotonic() + EJECTED_S
            raise NotConnected from None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose response was read to the end; close any other."""
        if connection.reusable and len(self._idle) < IDLE_CONNECTIONS_MAX:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close what idles."""
        while self._idle:
            self._idle.pop().abort()
