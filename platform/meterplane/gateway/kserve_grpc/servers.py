"""Triton servers over gRPC: which one is asked, and what is known of their health.

Of two drawn at random the one with fewer requests is asked; one that fails is left alone for a
while (`triton.circuit`). Another is asked only as long as nothing was sent. Channels are kept, and
come back by themselves within `RECONNECT_MS_MAX`.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import grpc

from meterplane.gateway.exposition import Family
from meterplane.gateway.kserve_grpc.codes import failure_of
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import UPSTREAM_CONNECT_TIMEOUT_S, UPSTREAM_RESPONSE_BYTES_MAX
from meterplane.triton.circuit import Attempt, Circuit
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable

SERVICE = "inference.GRPCInferenceService"
SERVERS_MAX = 1024  # addresses the catalog names, old ones included; the oldest gives way
RECONNECT_MS_MAX = 1000
DRAIN_S = 1.0  # for the end of a stream whose last response is here

Metadata = Sequence[tuple[str, str]]

_OPTIONS = (
    ("grpc.max_receive_message_length", UPSTREAM_RESPONSE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # bounded where it came from the caller
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(UPSTREAM_CONNECT_TIMEOUT_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
    ("grpc.enable_retries", 0),  # what may be sent twice is decided here
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a server may be silent, in seconds."""

    first_byte_s: float
    idle_s: float


class GrpcServer:
    """One address."""

    __slots__ = ("address", "channel", "circuit", "in_flight")

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.circuit = Circuit()
        self.in_flight = 0

    async def connect(self) -> bool:
        """True once it is connected; False when it cannot be, for now."""
        channel = self.channel
        state = channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(UPSTREAM_CONNECT_TIMEOUT_S):
                while state is not grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                    if state in _LOST:
                        return False
        except TimeoutError:
            return False
        return True

    async def unary(self, method: str, content: bytes, metadata: Metadata, waits: Waits) -> bytes:
        """One answer. Raises `CallerError` or `WorldError`; cancelled, it cancels the server's."""
        call = self.channel.unary_unary(f"/{SERVICE}/{method}")(content, metadata=metadata)
        try:
            async with asyncio.timeout(waits.first_byte_s):
                answer: bytes = await call
        except TimeoutError:
            raise TritonTimeout from None
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        finally:
            call.cancel()
        return answer

    async def stream(
        self, method: str, content: bytes, metadata: Metadata, waits: Waits
    ) -> AsyncGenerator[bytes, None]:
        """The responses to one request. Raises like `unary`; closed early, it cancels."""
        call = self.channel.unary_stream(f"/{SERVICE}/{method}")(content, metadata=metadata)
        wait_s = waits.first_byte_s
        try:
            while True:
                async with asyncio.timeout(wait_s):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                wait_s = waits.idle_s
                yield response
        except TimeoutError:
            raise TritonTimeout from None
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        finally:
            call.cancel()


_LOST = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


@dataclass(frozen=True, slots=True)
class Lent:
    """A connected server, and how many were tried before it."""

    server: GrpcServer
    retries: int


class GrpcServers:
    """All of one worker. `own` are the gateway's; a model may have its own addresses."""

    def __init__(self, own: list[str]) -> None:
        self._own = tuple(own)
        self._servers: dict[str, GrpcServer] = {}

    @contextlib.asynccontextmanager
    async def lend(self, addresses: Sequence[str]) -> AsyncIterator[Lent]:
        """A connected server of these, the gateway's own when there are none.

        Raises `TritonUnavailable` when none can be connected to. How it went is noted on the way
        out: what a server refuses does not speak against it.
        """
        server, attempt, retries = await self._connected(addresses or self._own)
        server.in_flight += 1
        try:
            yield Lent(server, retries)
        except (TritonTimeout, TritonBroken):
            server.circuit.failed(time.monotonic(), attempt)
            raise
        except (CallerError, WorldError):
            server.circuit.succeeded(attempt)
            raise
        except BaseException:
            server.circuit.abandoned(attempt)
            raise
        else:
            server.circuit.succeeded(attempt)
        finally:
            server.in_flight -= 1

    async def _connected(self, addresses: Sequence[str]) -> tuple[GrpcServer, Attempt, int]:
        left = [self._server(address) for address in addresses]
        retries = 0
        while left:
            server, attempt = _choose(left, time.monotonic())
            if attempt is Attempt.TRIAL:
                server.circuit.begin_trial()
            try:
                connected = await server.connect()
            except BaseException:
                server.circuit.abandoned(attempt)
                raise
            if connected:
                return server, attempt, retries
            server.circuit.unreachable(time.monotonic(), attempt)
            left.remove(server)
            retries += 1
        raise TritonUnavailable

    def _server(self, address: str) -> GrpcServer:
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = GrpcServer(address)
            if len(self._servers) > SERVERS_MAX:
                idle = [each for each in self._servers.values() if not each.in_flight]
                # Left to the collector, which closes it: a request may just be about to begin.
                del self._servers[idle[0].address]
        return server

    def families(self) -> Iterator[Family]:
        """Every server as it is now, for metrics."""
        healthy = Family(
            "meterplane_gateway_grpc_server_healthy",
            "gauge",
            "0 while a gRPC server is ejected (circuit open).",
        )
        in_flight = Family(
            "meterplane_gateway_grpc_server_in_flight",
            "gauge",
            "Requests that a gRPC server is answering.",
        )
        for server in self._servers.values():
            healthy.add(int(server.circuit.closed), server=server.address)
            in_flight.add(server.in_flight, server=server.address)
        yield from (healthy, in_flight)

    async def close(self) -> None:
        """Close every channel; what is under way is cancelled."""
        await asyncio.gather(*(each.channel.close() for each in self._servers.values()))


def _choose(servers: list[GrpcServer], now: float) -> tuple[GrpcServer, Attempt]:
    closed = [each for each in servers if each.circuit.closed]
    trials = [each for each in servers if each.circuit.half_open(now)]
    if trials:
        return trials[0], Attempt.TRIAL
    if closed:
        drawn = random.sample(closed, min(2, len(closed)))
        return min(drawn, key=lambda each: each.in_flight), Attempt.NORMAL
    return random.choice(servers), Attempt.LAST_RESORT  # noqa: S311  a spread, not a secret
