"""Requests to a set of equal servers.

Which one: the less busy of two random healthy ones (power of two choices on requests in flight).
A server that is half-open gets one request as its trial, unless active checks run and another is
healthy: a probe risks nobody's answer. When all are ejected the one whose failure is oldest is
asked all the same: nothing is refused without a try.

Sent again, to at most `SERVERS_TRIED_MAX` servers, only what no server has begun:

1. the connection could not be made (or the server has as many as it is given): nothing was sent;
2. a kept connection was closed before any byte of an answer, as servers do with idle ones just
   when they are used again: once, and on a new connection;
3. the server said that it did not take it: 503, or 400/404 with Triton's own words for a model
   that it does not have. Another healthy server is asked if there is one; if not, the caller gets
   the answer.

The limit of this: in case 2 a server may have read the request, begun it and died before its
first byte; in case 3 a 503 may come from a proxy in front that gave up waiting. Then the request
is computed twice. It is answered once and so billed once; a model with side effects of its own
must recognise repetitions by its request id. Nothing is ever sent again after a byte of a
response's body was given out, nor after a timeout or a broken answer.

Health: what counts against a server is a failed connect (at once), a break or timeout before the
head and a 502 (three in a row). A 503 counts only for its path; the server is probed, and ejected
when `/v2/health/ready` fails too. A cancelled request says nothing.
"""

import random
import time
from collections.abc import Sequence
from typing import Final, Protocol

from meterplane.kernel.invariant import ensure
from meterplane.kernel.limits import UPSTREAM_RESPONSE_BYTES_MAX
from meterplane.triton.circuit import Attempt
from meterplane.triton.connection import HEAD, WHOLE, Connection
from meterplane.triton.failures import (
    MODEL_DIED_BODY,
    TritonBroken,
    TritonTimeout,
    TritonUnavailable,
)
from meterplane.triton.request import Request
from meterplane.triton.server import Busy, NotConnected, Server
from meterplane.triton.upstream import Response, Upstream

SERVERS_TRIED_MAX = 3  # with a connect timeout of 2 s each: a caller hears within 6 s

# Triton's words for a model it does not have or that is not ready; the text in front of any name,
# so that no name or model can make them.
UNKNOWN_MODEL = b'{"error":"Request for unknown model: '

NORMAL: Final = Attempt.NORMAL


class Checks(Protocol):
    """Active health checks, as far as a pool knows them."""

    running: bool

    def suspect(self, server: Server) -> None:
        """Probe it soon."""


class Pool:
    """Equal servers, shared with other pools. Make it with `Fleet.pool`."""

    __slots__ = ("_checks", "servers")

    def __init__(self, servers: Sequence[Server], checks: Checks) -> None:
        ensure(servers, "a pool has a server")
        self.servers = tuple(servers)
        self._checks = checks

    async def send(
        self, request: Request, *, first_byte_timeout_s: float, idle_timeout_s: float
    ) -> Upstream:
        """Send and wait for the answer's head, whatever its status. The caller closes it.

        Raises `TritonUnavailable` (not taken), `TritonTimeout` or `TritonBroken`.
        """
        server, connection, retries = await self._ask(
            request, HEAD, first_byte_timeout_s, idle_timeout_s
        )
        return Upstream(connection, server, retries)

    async def fetch(
        self, request: Request, *, first_byte_timeout_s: float, idle_timeout_s: float
    ) -> Response:
        """Send and wait for the whole answer, at most `UPSTREAM_RESPONSE_BYTES_MAX` of body."""
        server, connection, retries = await self._ask(
            request, WHOLE, first_byte_timeout_s, idle_timeout_s
        )
        response = Response(
            connection.status, connection.headers, connection.take(), server.url, retries
        )
        server.finish(connection)
        return response

    async def _ask(
        self, request: Request, want: int, first_byte_timeout_s: float, idle_timeout_s: float
    ) -> tuple[Server, Connection, int]:
        """Whose answer, on which connection, after how many other servers. It counts as in flight
        until `Server.finish`.
        """
        tried: list[Server] = []
        sent = False
        body_bytes_max = UPSTREAM_RESPONSE_BYTES_MAX
        while True:
            server, attempt = self._choose(tried, request.path)
            server.in_flight += 1
            server.requests += 1
            address = server.address
            writes = request.writes(address.prefix, address.version_and_host)
            # From the second time on only new connections: a request that kills servers must not
            # go through every kept one.
            connection = None if sent else server.take_idle()
            try:
                if connection is not None:
                    sent = True
                    try:
                        await connection.ask(
                            writes, want, first_byte_timeout_s, idle_timeout_s, body_bytes_max
                        )
                    except TritonUnavailable:
                        server.close_idle()  # what idled as long is probably closed too
                        connection = None
                if connection is None:
                    if server.in_flight > server.connections_max:
                        raise Busy("every connection is busy")
                    connection = await server.connect()
                    sent = True
                    await connection.ask(
                        writes, want, first_byte_timeout_s, idle_timeout_s, body_bytes_max
                    )
            except BaseException as problem:
                if connection is not None:
                    connection.abort()
                server.in_flight -= 1
                self._went_wrong(server, attempt, connection, problem)
                tried.append(server)
                if not isinstance(problem, NotConnected) or not self._untried(tried):
                    if isinstance(problem, TritonUnavailable):
                        problem.servers_asked = len(tried)
                        problem.may_have_begun = connection is not None
                    raise
                continue
            if connection.status < 400 and server.circuit.spotless:
                return server, connection, len(tried)
            if not self._not_taken(server, attempt, connection, request.path, tried):
                return server, connection, len(tried)
            if connection.complete:
                connection.take()  # the refusal is read, the connection is as good as before
            server.finish(connection)
            tried.append(server)

    def _went_wrong(
        self,
        server: Server,
        attempt: Attempt,
        connection: Connection | None,
        problem: BaseException,
    ) -> None:
        circuit = server.circuit
        if isinstance(problem, NotConnected) and not isinstance(problem, Busy):
            server.failures += 1
            circuit.unreachable(time.monotonic(), attempt)
        elif isinstance(problem, (TritonUnavailable, TritonTimeout, TritonBroken)) and not (
            isinstance(problem, Busy) or (connection is not None and connection.head_complete)
        ):
            server.failures += 1
            circuit.failed(time.monotonic(), attempt)
        else:
            circuit.abandoned(attempt)

    def _not_taken(
        self,
        server: Server,
        attempt: Attempt,
        connection: Connection,
        path: str,
        tried: list[Server],
    ) -> bool:
        """Learn from an answer. True when another server is to be asked for one."""
        status, circuit = connection.status, server.circuit
        now = time.monotonic()
        if status == 502 or (status == 503 and attempt is Attempt.TRIAL):
            circuit.failed(now, attempt)
        elif status != 503:
            circuit.succeeded(attempt)
        if status in (502, 503):
            server.failures += 1
            self._checks.suspect(server)
        elif status in (400, 404, 500):
            said = connection.peek()
            if MODEL_DIED_BODY.match(said):  # maybe of this request: not sent again
                server.not_ready(path, now)
            if status == 500 or not connection.complete or not said.startswith(UNKNOWN_MODEL):
                return False
        if status not in (400, 404, 503):
            return False
        server.not_ready(path, now)
        return self._untried([*tried, server], healthy=True, now=now)

    def _untried(self, tried: list[Server], *, healthy: bool = False, now: float = 0.0) -> bool:
        """True when there is a server left to ask, and trying is not at its bound."""
        return len(tried) < SERVERS_TRIED_MAX and any(
            server not in tried
            and (not healthy or server.circuit.closed or server.circuit.half_open(now))
            for server in self.servers
        )

    def _choose(self, tried: list[Server], path: str) -> tuple[Server, Attempt]:
        servers = self.servers
        if not tried:
            count = len(servers)
            if count == 1:
                if servers[0].circuit.closed:
                    return servers[0], NORMAL
            else:
                index = int(random.random() * count)  # noqa: S311  a choice, not a secret
                other = int(random.random() * (count - 1))  # noqa: S311
                first, second = servers[index], servers[index - 1 - other]  # never the same
                if first.steady and second.steady:
                    return (first if first.in_flight <= second.in_flight else second), NORMAL
        return self._weigh([server for server in servers if server not in tried], path)

    def _weigh(self, left: list[Server], path: str) -> tuple[Server, Attempt]:
        """As `_choose`, where not every server is as good as another."""
        now = time.monotonic()
        closed = [server for server in left if server.circuit.closed]
        if not (closed and self._checks.running):
            for server in left:
                if server.circuit.half_open(now):
                    server.circuit.begin_trial()
                    return server, Attempt.TRIAL
        if not closed:
            return min(left, key=lambda server: server.circuit.failed_at), Attempt.LAST_RESORT
        fit = [server for server in closed if server.ready_for(path, now)] or closed
        two = random.sample(fit, min(2, len(fit)))
        return min(two, key=lambda server: server.in_flight), NORMAL
