"""Worker processes that take prepared segments in, one after the other, as Celery's would."""

import multiprocessing
import random
import resource
import time
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.ingest.segments import segment
from tests.benchmarks.ingest.server import Key, Server


@dataclass(frozen=True, slots=True)
class Sustained:
    """What some workers took in, and what of two processors' time it took."""

    events: int
    took_s: float
    python_us: float
    postgres_us: float

    @property
    def rate(self) -> float:
        return self.events / self.took_s

    @property
    def capacity(self) -> float:
        """Events a second of two cores that nobody else is at work on."""
        return 2e6 / (self.python_us + self.postgres_us)


def sustained(server: Server, keys: list[Key], workers: int, events: int, seed: int) -> Sustained:
    """Have `workers` take `events` in together."""
    context = multiprocessing.get_context("fork")
    ready, begin = context.Barrier(workers + 1), context.Barrier(workers + 1)
    done: Any = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(keys, events // workers, seed + n, ready, begin, done))
        for n in range(workers)
    ]
    for process in processes:
        process.start()
    ready.wait()
    postgres_s, began = server.cpu_s(), time.perf_counter()
    begin.wait()
    found = [done.get() for _ in processes]
    took_s = time.perf_counter() - began
    for process in processes:
        process.join()
    postgres_s = server.cpu_s() - postgres_s
    count = sum(each[0] for each in found)
    python_s = sum(each[1] for each in found)
    return Sustained(count, took_s, python_s / count * 1e6, postgres_s / count * 1e6)


def _work(keys: list[Key], events: int, seed: int, ready: Any, begin: Any, done: Any) -> None:
    import msgspec

    from meterplane.kernel.limits import SEGMENT_BYTES_MAX
    from meterplane.metering import ship, tasks

    chance = random.Random(seed)
    first, _ = segment(keys, chance)
    prepared, count = [], 0
    while count < events:
        prepared.append(segment(keys, chance))
        count += prepared[-1][1]
    # As a shipper sends what waited: several at once, each lot one text in the broker.
    size = ship.TOGETHER_BYTES_MAX // SEGMENT_BYTES_MAX
    lots = [
        b"[%b]" % b",".join(message for message, _ in prepared[at : at + size])
        for at in range(0, len(prepared), size)
    ]
    tasks.ingest_segments([msgspec.json.decode(first)])  # connects, plans, imports
    ready.wait()
    begin.wait()
    began = _cpu_s()
    for lot in lots:
        tasks.ingest_segments(msgspec.json.decode(lot))
    done.put((count, _cpu_s() - began))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def drained(server: Server, keys: list[Key], events: int, seed: int) -> Sustained:
    """A dead gateway's journal, as an outage leaves it: shipper and worker in one process."""
    import zlib

    import msgspec
    from django.db import connections

    from meterplane.contracts.usage import SegmentMessage
    from meterplane.journal.directory import list_directories
    from meterplane.journal.segment import SEALED_SUFFIX
    from meterplane.kernel.ids import uuid7
    from meterplane.metering import ship, tasks

    chance, count = random.Random(seed), 0
    root = server.home / "drained"
    home = root / f"bench.{uuid7()}"
    home.mkdir(parents=True)
    while count < events:
        raw, held = segment(keys, chance)
        message = msgspec.convert(msgspec.json.decode(raw), SegmentMessage)
        path = home / f"{message.segment_id}{SEALED_SUFFIX}"
        path.write_bytes(zlib.decompress(message.body))
        count += held

    def send(together: list[SegmentMessage]) -> None:
        tasks.ingest_segments(
            msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(together)))
        )

    shipper = ship.Shipper(root, send=send)
    python_s, postgres_s, began = _cpu_s(), server.cpu_s(), time.perf_counter()
    shipper.run(lambda: not list_directories(root))
    took_s = time.perf_counter() - began
    python_s, postgres_s = _cpu_s() - python_s, server.cpu_s() - postgres_s
    connections.close_all()
    return Sustained(count, took_s, python_s / count * 1e6, postgres_s / count * 1e6)
