"""Active health checks: whether servers that nobody asks would answer.

Ejected servers are probed every `EJECTED_PROBE_S`, one that answered 502 or 503 at once, a healthy
one only when nobody has asked it for `IDLE_PROBE_S`. A probe is `GET /v2/health/ready` on a new
connection. Any status below 500 is life: Triton answers 400 as long as one of its models is not
ready, which says nothing about the others, and an OpenAI-compatible server answers 404.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable

from meterplane.kernel.errors import WorldError
from meterplane.triton.connection import WHOLE
from meterplane.triton.request import Request
from meterplane.triton.server import Server

EJECTED_PROBE_S = 2.0
IDLE_PROBE_S = 10.0
SUSPECT_PROBE_S = 1.0  # however many requests are answered 503
UNASKED_S_MAX = 600.0  # nobody's: it left the catalog, and is probed no more
JITTER = 0.25  # the workers of a host must not probe in step
TICK_S = 0.25
TIMEOUT_S = 2.0
PROBES_MAX = 16  # at once; 16 dead servers / 2 s keep up with 16 ejected ones every 2 s
ANSWER_BYTES_MAX = 64 * 1024

_PROBE = Request("GET", "/v2/health/ready")


class _Seen:
    """What the checks remember of one server."""

    __slots__ = ("asked_at", "jitter", "probed_at", "requests")

    def __init__(self, now: float) -> None:
        self.asked_at = now
        self.probed_at = now - IDLE_PROBE_S
        self.requests = 0
        self.jitter = 1.0


class Probes:
    """The checks of one fleet. `servers` gives the ones there are."""

    def __init__(self, servers: Callable[[], Iterable[Server]]) -> None:
        self.running = False
        self._servers = servers
        self._seen: dict[str, _Seen] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._probes: dict[Server, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Needs a running loop. Again is nothing."""
        if self._task is None:
            self.running = True
            self._task = asyncio.get_running_loop().create_task(self._run(), name="triton-probes")

    async def close(self) -> None:
        """Stop, and wait until it has."""
        tasks = [*self._probes.values()] + ([self._task] if self._task is not None else [])
        self.running, self._task = False, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def suspect(self, server: Server) -> None:
        """An answer made somebody doubt it."""
        if self.running and not server.suspected:
            server.suspected = True
            self._wake.set()

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            for server in list(self._servers()):
                server.close_stale_idle(now)
                if self._due(server, now) and len(self._probes) < PROBES_MAX:
                    self._begin(server, now)
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def _due(self, server: Server, now: float) -> bool:
        seen = self._seen.get(server.url)
        if seen is None:
            seen = self._seen[server.url] = _Seen(now)
        if seen.requests != server.requests:
            seen.requests = server.requests
            seen.asked_at = now
        if server in self._probes or now - seen.asked_at > UNASKED_S_MAX:
            return False
        since_s = now - seen.probed_at
        if not server.circuit.closed:
            return since_s >= EJECTED_PROBE_S * seen.jitter
        if server.suspected:
            return since_s >= SUSPECT_PROBE_S
        idle_s = IDLE_PROBE_S * seen.jitter
        return since_s >= idle_s and now - seen.asked_at >= idle_s

    def _begin(self, server: Server, now: float) -> None:
        seen = self._seen[server.url]
        seen.probed_at = now
        seen.jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  a spread, not a secret
        server.suspected = False
        task = asyncio.get_running_loop().create_task(self._probe(server))
        self._probes[server] = task
        task.add_done_callback(lambda _: self._probes.pop(server, None))

    async def _probe(self, server: Server) -> None:
        alive = await answers(server)
        now = time.monotonic()
        if alive:
            server.circuit.probe_succeeded(now)
        else:
            server.failures += 1
            server.circuit.probe_failed(now)


async def answers(server: Server) -> bool:
    """True when it answers a probe. The connection is kept: it is as good as any other."""
    address = server.address
    writes = _PROBE.writes(address.prefix, address.version_and_host)
    try:
        connection = await server.connect()
    except WorldError:
        return False
    server.in_flight += 1
    try:
        await connection.ask(writes, WHOLE, TIMEOUT_S, TIMEOUT_S, ANSWER_BYTES_MAX)
        connection.take()
    except WorldError:
        return False
    finally:
        server.finish(connection)  # which aborts one whose answer did not come
    return connection.status < 500
