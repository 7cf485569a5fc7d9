"""This machine, seen from `/proc`: cores, who used the processor, memory, whether it is calm."""

import os
import re
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CALM_CORES_MAX = 0.15  # of processor time by others, over CALM_SAMPLE_S
CALM_SAMPLE_S = 0.5


def cores() -> tuple[int, int]:
    """The gateway's core and everybody else's; the same one where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def raise_descriptor_limit() -> int:
    """Open files allowed to us and to what we start, after asking for all there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def processor() -> str:
    """Its name, as the kernel tells it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else "unknown processor"


def filesystem_of(folder: Path) -> str:
    """The type of the filesystem that holds `folder`, `tmpfs` for instance."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, this_kind = line.split()[:3]
        inside = mount == "/" or f"{folder.resolve()}/".startswith(f"{mount}/")
        if inside and len(mount) >= len(best):
            best, kind = mount, this_kind
    return kind


def with_children(pids: Iterable[int]) -> list[int]:
    """The processes and everything they started."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], list(pids)
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def processor_s(pids: Iterable[int]) -> float:
    """Seconds of processor time these and their children used until now."""
    ticks = 0
    for pid in with_children(pids):
        fields = _stat(pid)
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / TICKS_PER_S


def busy_s() -> float:
    """Seconds of processor time that anybody used since the machine started."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS_PER_S  # without idle and waiting for disks


def memory_mb(pids: Iterable[int]) -> tuple[float, float]:
    """Resident and proportional set size of these and their children."""
    resident_kb = proportional_kb = 0
    for pid in with_children(pids):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        for name, value in re.findall(r"^(Rss|Pss):\s+(\d+)", text, re.MULTILINE):
            resident_kb += int(value) if name == "Rss" else 0
            proportional_kb += int(value) if name == "Pss" else 0
    return resident_kb / 1024, proportional_kb / 1024


def resident_kb(pid: int) -> float:
    """Resident set size of one process, cheap enough to sample while it works."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1024


@dataclass(frozen=True, slots=True)
class Used:
    """Cores in use, on average, by each group of processes and by strangers."""

    by_group: Mapping[str, float]
    foreign: float


class Meter:
    """Processor time from its making to `read`, by group. Load clients are children of ours that
    have ended by then; whoever is in no group is a stranger."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}
        self._began = self._now()

    def _now(self) -> dict[str, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        return {name: processor_s(pids) for name, pids in self._groups.items()} | {
            "client": ended.ru_utime + ended.ru_stime,
            "harness": own.ru_utime + own.ru_stime,
            "busy": busy_s(),
            "clock": time.monotonic(),
        }

    def read(self) -> Used:
        """Since the meter was made."""
        now = self._now()
        took_s = max(now["clock"] - self._began["clock"], 1 / TICKS_PER_S)
        shares = {name: (now[name] - self._began[name]) / took_s for name in now}
        busy, _ = shares.pop("busy"), shares.pop("clock")
        return Used(shares, max(0.0, busy - sum(shares.values())))


class Patience:
    """How long a whole run waits for strangers to leave the machine alone.

    Bounded for the run and not for each wait: on a machine that is never calm, every figure would
    otherwise cost its whole wait, and be no better for it.
    """

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @property
    def is_over(self) -> bool:
        """Nothing is waited for, and nothing repeated, any more."""
        return self._left_s <= 0

    def wait_for_calm(self, groups: Mapping[str, Iterable[int]]) -> None:
        """Until strangers use hardly anything, or patience is over."""
        while not self.is_over:
            meter = Meter(groups)
            time.sleep(CALM_SAMPLE_S)
            if meter.read().foreign < CALM_CORES_MAX:
                return
            self._left_s -= CALM_SAMPLE_S


def _stat(pid: int) -> list[str]:
    """Fields of `/proc/PID/stat` from the state on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
