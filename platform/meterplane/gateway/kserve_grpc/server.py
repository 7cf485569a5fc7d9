"""Listen and drain: the life of the gRPC worker's port.

Drain: take no new calls, let running ones end for `drain_s`, then cancel them; each still settles.
"""

import asyncio
import logging
import signal
import time

import grpc

from meterplane.gateway.kserve_grpc.config import GrpcConfig
from meterplane.gateway.kserve_grpc.servers import GrpcServers
from meterplane.gateway.kserve_grpc.service import Service
from meterplane.gateway.operator_port import OperatorPort
from meterplane.gateway.server import CUT_S, DRAIN_S, SWEEP_S, allow_descriptors
from meterplane.gateway.worker import Worker
from meterplane.kernel.limits import HEADER_BYTES_MAX, REQUEST_BODY_BYTES_MAX

log = logging.getLogger("meterplane.gateway")

CALLS_MAX = 4096  # of one worker, streams among them; x ~30 kB = 120 MB
CALLS_PER_CONNECTION_MAX = 1024
KEEPALIVE_MS = 60_000  # a caller that vanished is noticed within this and the next
KEEPALIVE_TIMEOUT_MS = 20_000
PINGS_EVERY_MS_MIN = 10_000  # what a caller may send

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ("grpc.max_receive_message_length", REQUEST_BODY_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # bounded where it came from the server behind
    ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION_MAX),
    ("grpc.max_metadata_size", HEADER_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", HEADER_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", PINGS_EVERY_MS_MIN),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def run(config: GrpcConfig, drain_s: float = DRAIN_S) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port cannot be had."""
    allow_descriptors()
    worker = Worker(config.gateway)
    servers = GrpcServers(config.servers)
    try:
        await _serve(Service(await worker.open(), servers), servers, config, drain_s)
    finally:
        await servers.close()
        await worker.close()


async def _serve(
    service: Service, servers: GrpcServers, config: GrpcConfig, drain_s: float
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = service.parts.metrics
    metrics.gauges["calls_in_flight"] = ("gRPC calls being answered.", lambda: service.running)
    metrics.sources.append(servers.families)
    operator = OperatorPort(service.parts)
    if config.gateway.metrics_port:
        await operator.listen(config.gateway.metrics_host, config.gateway.metrics_port)
    sweeping = loop.create_task(_sweep(operator))
    server = grpc.aio.server(
        handlers=(service,), options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX
    )
    address = f"{config.gateway.host}:{config.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"{address} cannot be listened on") from None
    await server.start()
    log.info("serving gRPC on %s", address)
    try:
        await stopping.wait()
        service.parts.readiness.draining = True
        stop = asyncio.ensure_future(server.stop(drain_s + CUT_S))
        await asyncio.wait({stop}, timeout=drain_s)
        await service.cut(CUT_S)
        await server.stop(0)
        await stop
    finally:
        sweeping.cancel()
        await operator.close()
        service.parts.log.flush()


async def _sweep(operator: OperatorPort) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        operator.sweep(time.monotonic())
