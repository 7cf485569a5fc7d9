"""Listen, sweep, drain: the life of one worker's port.

One sweep a second looks at every connection's deadline: heads and bodies that do not arrive,
answers that are not read, idle connections and requests that run too long all end there.

Drain: stop listening, let idle connections go, let running requests end for `drain_s`, then cancel
them; each still settles. Nothing admitted is lost: what does not even settle in `CUT_S` (a stuck
disk) is settled from the journal by the shipper.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import time

from meterplane.gateway.app import Gateway
from meterplane.gateway.config import Config
from meterplane.gateway.http1 import HttpConnection
from meterplane.gateway.operator_port import OperatorPort
from meterplane.gateway.worker import Worker
from meterplane.kernel.limits import CONNECTIONS_MAX

log = logging.getLogger("meterplane.gateway")

BACKLOG = 2048
DRAIN_S = 30.0  # in-flight requests at SIGTERM; longer streams are cut and settled as cancelled
CUT_S = 5.0  # what was cut settles in milliseconds; a stuck disk must not hold us
FLUSH_S = 5.0  # for the last answers to leave our buffers; they are settled already
FLUSH_LOOKS = 250  # every 20 ms
SWEEP_S = 1.0


async def run(config: Config, drain_s: float = DRAIN_S) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port cannot be had."""
    allow_descriptors()
    worker = Worker(config)
    try:
        gateway = Gateway(await worker.open())
        # What was loaded stays: a collection need not walk it while requests wait.
        gc.collect()
        gc.freeze()
        await _serve(gateway, config, drain_s)
    finally:
        await worker.close()


async def _serve(gateway: Gateway, config: Config, drain_s: float) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    connections: set[HttpConnection] = set()

    def connect() -> asyncio.Protocol:
        return HttpConnection(gateway.start, connections)

    gauges = gateway.parts.metrics.gauges
    gauges["connections"] = ("Open connections.", lambda: len(connections))
    gauges["requests_in_flight"] = ("Requests being answered.", lambda: len(gateway.answering))
    operator = OperatorPort(gateway.parts)
    if config.metrics_port:
        await operator.listen(config.metrics_host, config.metrics_port)
    server = await loop.create_server(
        connect, config.host, config.port, backlog=BACKLOG, reuse_port=config.reuse_port or None
    )
    sweeping = loop.create_task(_sweep(connections, operator))
    try:
        await stopping.wait()
        gateway.parts.readiness.draining = True
        gateway.parts.log.flush()
        await _drain(gateway, server, connections, drain_s)
    finally:
        sweeping.cancel()
        await operator.close()
        gateway.parts.log.flush()


async def _sweep(connections: set[HttpConnection], operator: OperatorPort) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        now = time.monotonic()
        overdue = [each for each in connections if each.deadline and each.deadline < now]
        for connection in overdue:
            connection.overdue(now)
        operator.sweep(now)


async def _drain(
    gateway: Gateway,
    server: asyncio.AbstractServer,
    connections: set[HttpConnection],
    drain_s: float,
) -> None:
    server.close()
    for connection in list(connections):
        connection.close_when_idle()
    if gateway.answering:
        await asyncio.wait(set(gateway.answering), timeout=drain_s)
    cut = set(gateway.answering)
    for task in cut:
        task.cancel()
    if cut:
        await asyncio.wait(cut, timeout=CUT_S)
    for connection in list(connections):
        connection.close_when_idle()
    # An answer is written when its task ends, and sent when its caller has read so far.
    for _ in range(FLUSH_LOOKS):
        if connections:
            await asyncio.sleep(FLUSH_S / FLUSH_LOOKS)


def allow_descriptors() -> None:
    """As many open files as the system lets us have: a connection is one, its upstream another."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS_MAX + 1024
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
