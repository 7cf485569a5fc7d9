"""Requests and chunks per second, and what a request waits: every target, in turn."""

from collections.abc import Callable

from tests.benchmarks.gateway.bench import Bench
from tests.benchmarks.gateway.load import Sample
from tests.benchmarks.gateway.rounds import Measured, alternate
from tests.benchmarks.gateway.targets import Target
from tests.benchmarks.gateway.workload import CHAT, PACED, RELAYED, RELAYED_IN_BURSTS, Request

CHAT_CONNECTIONS = (1, 32, 128)
STREAM_CONNECTIONS = (1, 64)
WARM_UP_S = 1.0


def chat(bench: Bench) -> None:
    """Plain answers at three loads."""
    options = bench.options
    for connections in CHAT_CONNECTIONS:
        for target in bench.targets:
            bench.load.wrk(target, CHAT, connections, WARM_UP_S)

        def once(target: Target, connections: int = connections) -> Sample:
            return bench.load.wrk(target, CHAT, connections, options.seconds)

        bench.report.chat(connections, _alternate(bench, once))
        bench.settle_accounts()


def streams(bench: Bench) -> None:
    """One chunk each 2 ms: alone, and many at once."""
    for connections in STREAM_CONNECTIONS:
        _stream(bench, PACED, connections)


def relay(bench: Bench) -> None:
    """Long streams back to back: what a chunk costs."""
    for request in (RELAYED, RELAYED_IN_BURSTS):
        _stream(bench, request, STREAM_CONNECTIONS[-1])


def _stream(bench: Bench, request: Request, connections: int) -> None:
    options = bench.options
    for target in bench.targets:
        bench.load.client(target, request, connections, seconds=WARM_UP_S)

    def once(target: Target) -> Sample:
        return bench.load.client(target, request, connections, seconds=options.seconds)

    bench.report.stream(request.name, connections, _alternate(bench, once))
    bench.settle_accounts()


def _alternate(bench: Bench, once: Callable[[Target], Sample]) -> list[Measured]:
    return alternate(
        bench.targets,
        once,
        rounds=bench.options.rounds,
        groups=bench.load.groups,
        patience=bench.patience,
    )
