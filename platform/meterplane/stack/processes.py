"""Which process is which, so that a signal never reaches a stranger.

A pid alone proves nothing: the kernel hands it out again. A process is named here by its pid, the
tick it was started at (field 22 of /proc/<pid>/stat) and the boot it belongs to; a signal goes
through a pidfd opened *before* that check, so the number cannot be reused in between.

Every component is the leader of a session of its own, and its descendants are found by session.
The kernel does not reuse a number while a session of that number has members. PostgreSQL's backends
make sessions of their own and are not found; they end with their postmaster.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

PROC = Path("/proc")
MARKER = "METERPLANE_STACK"  # in the environment of everything a supervisor starts: its var folder
_ENDED = "ZX"
_LISTENING = "0A"


class Identity(msgspec.Struct, frozen=True):
    """One process for ever. `started_ticks` counts from the boot `boot_id`."""

    pid: int
    started_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    state: str
    session: int
    started_ticks: int


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Names the running boot of this machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """The process that has `pid` now; None when there is none (a zombie still counts)."""
    stat = _stat(pid)
    return Identity(pid, stat.started_ticks, boot_id()) if stat else None


def is_alive(identity: Identity) -> bool:
    """True while exactly this process runs. A zombie is dead."""
    if identity.boot_id != boot_id():
        return False
    stat = _stat(identity.pid)
    return (
        stat is not None
        and stat.started_ticks == identity.started_ticks
        and stat.state not in _ENDED
    )


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process. False when it is gone, whoever has its pid now."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def session_members(leader: Identity, *, marker: str) -> list[Identity]:
    """Living processes of the session that `leader` opened, without `leader` itself.

    When the leader is gone its number may have become another session's, so then only processes
    whose environment carries `MARKER=marker` are answered.
    """
    if leader.boot_id != boot_id():
        return []
    holder = _stat(leader.pid)
    if holder is not None and holder.started_ticks != leader.started_ticks:
        return []  # the number was reused, so nothing of our session is left
    return [
        Identity(stat.pid, stat.started_ticks, leader.boot_id)
        for stat in _all()
        if stat.session == leader.pid
        and stat.pid != leader.pid
        and stat.state not in _ENDED
        and stat.started_ticks >= leader.started_ticks
        and (holder is not None or _carries(stat.pid, marker))
    ]


def listens(pid: int, port: int) -> bool:
    """True if process `pid` itself holds a listening TCP socket on `port`."""
    folder = PROC / str(pid) / "fd"
    held: set[str] = set()
    try:
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):  # closed since it was listed
                held.add(os.readlink(folder / name))
    except OSError:
        return False
    return any(f"socket:[{inode}]" in held for inode in _listening_inodes(port))


def _listening_inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _all() -> Iterator[_Stat]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            yield stat


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold spaces and brackets itself.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(pid, fields[0], int(fields[3]), int(fields[19]))


def _carries(pid: int, marker: str) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARKER}={marker}".encode() in environment
