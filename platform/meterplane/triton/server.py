"""One inference server: its address, its idle connections, and what is known of its health.

What a server says about one model must not speak for the others: an answer "not this model, not
now" is remembered for that path alone and for a moment (`UNREADY_S`), and makes others be asked
first, no more. The server as a whole is judged by its `circuit`.
"""

import asyncio
import ssl
import time
from collections.abc import Callable

from meterplane.kernel.limits import CONNECTIONS_MAX, UPSTREAM_CONNECT_TIMEOUT_S
from meterplane.triton.address import parse
from meterplane.triton.circuit import Circuit
from meterplane.triton.connection import Connection
from meterplane.triton.failures import TritonUnavailable

IDLE_CONNECTIONS_MAX = 128
IDLE_S_MAX = 60.0  # below what stateful firewalls and proxies between forget (350 s and more)
UNREADY_S = 1.0  # a model that loads takes longer: then it is asked once a second
UNREADY_PATHS_MAX = 256  # 256 x ~200 bytes; the oldest gives way


class NotConnected(TritonUnavailable):
    """Nothing was sent: another server may be asked."""


class Busy(NotConnected):
    """It has as many requests as it is given at once. Says nothing about its health."""


class Server:
    """A pool of connections to one base URL. Raises ValueError if it cannot speak to it.

    `in_flight`, `requests` and `failures` are counted by whoever sends. `tls` is asked for a
    context when the address is https.
    """

    __slots__ = (
        "_idle",
        "_tls",
        "_unready",
        "address",
        "circuit",
        "connections_max",
        "failures",
        "in_flight",
        "requests",
        "suspected",
        "url",
    )

    def __init__(
        self,
        url: str,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        connections_max: int | None = None,
    ) -> None:
        self.url = url
        self.address = parse(url)
        self.circuit = Circuit()
        # As many as there are callers: what is too much for a server, it says itself.
        self.connections_max = CONNECTIONS_MAX if connections_max is None else connections_max
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.suspected = False  # an answer made somebody doubt it: to be probed soon
        self._tls = tls() if self.address.tls else None
        self._idle: list[Connection] = []
        self._unready: dict[str, float] = {}

    # --- connections

    def take_idle(self) -> Connection | None:
        """A connection that was left open, the most recently used first."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if time.monotonic() - connection.idle_since > IDLE_S_MAX:
                connection.abort()
                self.close_idle()  # the others have idled longer
            elif not connection.lost:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises `NotConnected`."""
        loop = asyncio.get_running_loop()
        address = self.address
        try:
            async with asyncio.timeout(UPSTREAM_CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    address.host,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.host if self._tls is not None else None,
                )
        except (OSError, TimeoutError):  # a certificate that does not hold is an OSError too
            raise NotConnected from None
        return connection

    def finish(self, connection: Connection) -> None:
        """A request that was counted in `in_flight` is over.

        Keeps a connection whose response was read to the end; closes any other.
        """
        self.in_flight -= 1
        if connection.reusable and len(self._idle) < IDLE_CONNECTIONS_MAX:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    @property
    def idle_connections(self) -> int:
        """How many are open and wait for a request."""
        return len(self._idle)

    def close_stale_idle(self, now: float) -> None:
        """Close what has idled too long; the longest come first."""
        while self._idle and now - self._idle[0].idle_since > IDLE_S_MAX:
            self._idle.pop(0).abort()

    def close_idle(self) -> None:
        """Close whatever idles."""
        while self._idle:
            self._idle.pop().abort()

    # --- what single paths said

    @property
    def steady(self) -> bool:
        """Nothing to weigh: it may be asked for anything."""
        return self.circuit.closed and not self._unready

    def not_ready(self, path: str, now: float) -> None:
        """It said that it cannot do this now: ask others first for a moment."""
        self._unready.pop(path, None)
        if len(self._unready) >= UNREADY_PATHS_MAX:
            del self._unready[next(iter(self._unready))]
        self._unready[path] = now + UNREADY_S

    def ready_for(self, path: str, now: float) -> bool:
        """False when it said not long ago that it cannot do this."""
        for said, until in list(self._unready.items()):
            if until > now:
                break  # in the order they were said: the rest is younger
            del self._unready[said]
        return path not in self._unready
