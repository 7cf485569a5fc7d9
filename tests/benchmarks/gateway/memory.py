"""What the gateway keeps: per request served (nothing, it should be), and per stream held."""

import json
import statistics
import threading
import time
from types import TracebackType

from tests.benchmarks.gateway.bench import Bench
from tests.benchmarks.gateway.load import numbers_of
from tests.benchmarks.gateway.machine import (
    Meter,
    memory_mb,
    raise_descriptor_limit,
    resident_kb,
)
from tests.benchmarks.gateway.targets import Target, get
from tests.benchmarks.gateway.workload import CHAT, IDLE, IDLE_LASTS_S

SLOPE_CONNECTIONS = 32
SAMPLE_EACH_S = 0.1
SETTLING_SHARE = 0.2  # of a run: pools and caches fill, which is not a slope
# A held stream takes two descriptors of the gateway: its caller's and its upstream's.
DESCRIPTORS_PER_STREAM = 2
DESCRIPTORS_SPARE = 512
OPENED_WITHIN_S = 10.0
QUIET_S = 2.0


class ResidentOverTime:
    """Samples a process's resident memory while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.samples: list[tuple[float, float]] = []  # seconds, kB

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EACH_S):
            self.samples.append((time.monotonic(), resident_kb(self._pid)))

    def __enter__(self) -> "ResidentOverTime":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()


def slope(bench: Bench) -> None:
    """Resident memory over a bounded number of requests, of the durable gateway."""
    target, count = bench.durable, bench.options.requests
    bench.wait_for_calm()
    with ResidentOverTime(target.pids[0]) as resident:
        sample = bench.load.client(target, CHAT, SLOPE_CONNECTIONS, requests=count)
    samples = resident.samples[int(len(resident.samples) * SETTLING_SHARE) :]
    kb_per_s = 0.0
    if len(samples) > 1:
        times, sizes = zip(*samples, strict=True)
        kb_per_s = statistics.linear_regression(times, sizes).slope
    bench.report.slope(
        target.name,
        {
            "requests": sample["ok"],
            "errors": sample["errors"],
            "rate": sample["rate"],
            "rss_first_mb": samples[0][1] / 1024 if samples else sample["rss_mb"],
            "rss_last_mb": sample["rss_mb"],
            "pss_mb": sample["pss_mb"],
            "kb_per_1000": kb_per_s * sample["seconds"] / max(1.0, sample["ok"]) * 1000,
        },
    )
    bench.settle_accounts()


def idle(bench: Bench) -> None:
    """Streams that say something each 5 s, and what others notice of them."""
    target, wanted = bench.durable, bench.options.idle_streams
    possible = (raise_descriptor_limit() - DESCRIPTORS_SPARE) // DESCRIPTORS_PER_STREAM
    if possible < wanted:
        print(f"\n  open files are limited (ulimit -n): {possible} streams instead of {wanted}")
    count = min(wanted, possible)
    bench.wait_for_calm()
    _, before_mb = memory_mb(target.pids)
    streams_before = _streams(target)
    began = time.monotonic()
    core = bench.starter.other_core
    client = bench.processes.start(
        "idle-client",
        bench.load.client_command(target, IDLE, count, requests=count),
        core=core,
    )
    bench.load.groups["idle client"] = [client.pid]
    while (
        _streams(target) - streams_before < count
        and client.poll() is None
        and time.monotonic() - began < OPENED_WITHIN_S
    ):
        time.sleep(0.05)
    opened_s, held = time.monotonic() - began, _streams(target) - streams_before
    meter = Meter(bench.load.groups)
    time.sleep(QUIET_S)
    used = meter.read()
    _, during_mb = memory_mb(target.pids)
    beside = bench.load.wrk(target, CHAT, 1, QUIET_S)
    client.wait(IDLE_LASTS_S + OPENED_WITHIN_S + 60)
    del bench.load.groups["idle client"]
    found = numbers_of(bench.processes.log("idle-client").read_text())
    if target.account:
        target.account.expect(int(found["ok"]))
    bench.report.idle(
        target.name,
        {
            "streams": float(count),
            "held": float(held),
            "complete": found["ok"],
            "errors": found["refused"] + found["cut"] + found["lost"],
            "opened_s": opened_s,
            "cpu": used.by_group[target.name],
            "pss_before_mb": before_mb,
            "pss_during_mb": during_mb,
            "kb_per_stream": (during_mb - before_mb) * 1024 / max(1, held),
            "chat_p50": beside["p50"],
            "chat_p99": beside["p99"],
        },
    )
    bench.settle_accounts()


def _streams(target: Target) -> int:
    """Streams that the target's upstream has begun."""
    return int(json.loads(get(target.upstream_port, "/count")[1])["streams"])
