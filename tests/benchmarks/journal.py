"""`python -m tests.benchmarks.journal [directory]`: what the journal costs, beside the bare disk.

Every line is measured in one run on one disk: `append` alone; appends in groups that share a
commit, per core (the CPU of all threads); then callers that each append one
SETTLE and commit, in a loop; by native AIO, by the thread, and without waiting for the disk. The
first line is what `fdatasync` takes without any of it. An ADMIT and the SETTLE of each request
makes two appends a commit at the gateway.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import uvloop

from meterplane.contracts import usage
from meterplane.journal import framing
from meterplane.journal.disk import Disk
from meterplane.journal.segment import allocation_bytes
from meterplane.journal.writer import JournalWriter, Mode
from tests.journal.frames import admit, settle

CALLERS = (1, 8, 64)
SECONDS = 2.0
APPENDS = 100_000
GROUP = 100  # frames that arrive while one sync of 1 ms runs, at 100,000 a second


def percentiles_us(latencies_s: list[float]) -> str:
    ordered = sorted(latencies_s)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1e6 for share in (0.5, 0.99))
    return f"p50 {p50:7,.0f} us   p99 {p99:7,.0f} us   max {ordered[-1] * 1e6:8,.0f} us"


def bare_disk(root: Path) -> None:
    """One frame written and synced at a time, into an allocated file."""
    frame = framing.encode(usage.encode(settle()))
    descriptor = os.open(root / "bare", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, allocation_bytes())
    os.fsync(descriptor)
    latencies = []
    for _ in range(allocation_bytes() // len(frame)):
        os.write(descriptor, frame)
        began = time.perf_counter()
        os.fdatasync(descriptor)
        latencies.append(time.perf_counter() - began)
    os.close(descriptor)
    print(f"{'bare fdatasync':34}{len(latencies) / sum(latencies):10,.0f}/s  ", end="")
    print(percentiles_us(latencies))


async def appends(root: Path) -> None:
    journal = JournalWriter.open(root, "bench", mode="process")
    for name, frame in (("admit", admit()), ("settle", settle())):
        spent = 0
        for _ in range(APPENDS // 1000):
            began = time.process_time_ns()
            for _ in range(1000):
                journal.append(frame)
            spent += time.process_time_ns() - began
            await asyncio.sleep(0)
        print(f"{'append ' + name:34}{spent / APPENDS / 1000:10.2f} us of CPU, all threads")
    await journal.close()


async def appends_per_core(root: Path, mode: Mode) -> None:
    """Half ADMITs, half SETTLEs, in groups of `GROUP` that share a commit, as under load."""
    journal = JournalWriter.open(root, "bench", mode=mode)
    frames = [admit(), settle()] * (GROUP // 2)
    groups = APPENDS // GROUP
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(groups):
        for frame in frames:
            journal.append(frame)
        await journal.commit()
        await asyncio.sleep(0)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    n = groups * GROUP
    name = f"{mode} {journal.sync_method}, groups of {GROUP}"
    print(f"{name:34}{n / cpu:10,.0f} appends/s per core (n={n:,}; {n / took:,.0f}/s by the clock)")
    await journal.close()


async def commits(root: Path, disk: Disk, mode: Mode, callers: int) -> None:
    journal = JournalWriter.open(root, "bench", disk, mode=mode)
    latencies: list[float] = []
    frame = settle()
    until = time.perf_counter() + SECONDS

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            journal.append(frame)
            await journal.commit()
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(0)

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    name = f"{mode} {journal.sync_method}, {callers} callers"
    print(f"{name:34}{len(latencies) / took:10,.0f}/s  {percentiles_us(latencies)}", end="")
    print(f"   {cpu / len(latencies) * 1e6:6.1f} us of CPU each")
    await journal.close()


async def measure(root: Path) -> None:
    await appends(root)
    for mode in get_args(Mode):
        await appends_per_core(root, mode)
    for callers in CALLERS:
        await commits(root, Disk(), "durable", callers)
        await commits(root, Disk(native_aio=False), "durable", callers)
        await commits(root, Disk(), "process", callers)


def main() -> None:
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    root = Path(tempfile.mkdtemp(prefix="journal-bench-", dir=parent))
    try:
        bare_disk(root)
        uvloop.run(measure(root))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
