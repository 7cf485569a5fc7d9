"""The directory of one writer's life, and the lock that tells whether that life goes on.

Layout: `<root>/<worker>.<uuid7>/{lock, <segment>.open, <segment>.sealed}`. A worker that starts
again gets a new directory, so what its predecessor left can be recovered while it already serves,
and a writer whose disk failed can be replaced within the same process.

Guarantees: a directory whose name does not start with a dot has its lock held for as long as its
writer lives (it is locked under a hidden name and renamed afterwards), and the kernel releases the
lock however the writer ends.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

from meterplane.journal.disk import Disk
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.ids import uuid7

LOCK_NAME = "lock"
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def create(root: Path, worker: str, disk: Disk) -> tuple[Path, int]:
    """Make and lock a fresh directory for `worker`. Returns it and the lock's descriptor."""
    if not _WORKER.fullmatch(worker):
        raise ValueError(f"{worker!r} is no worker name: letters, digits, _ and -, at most 100")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{worker}.{uuid7()}"
    hidden, directory = root / f".{name}", root / name
    hidden.mkdir(mode=0o700)
    descriptor = None
    try:
        descriptor = _open_lock(hidden)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        failpoint("journal.directory.before_rename")
        disk.rename(hidden, directory)
        disk.sync_directory(root)
    except OSError:
        # It is tried again and again while a disk is not well. One that has its name is recovered.
        with contextlib.suppress(OSError):
            (hidden / LOCK_NAME).unlink()
            hidden.rmdir()
        if descriptor is not None:
            os.close(descriptor)
        raise
    return directory, descriptor


def claim(directory: Path) -> int | None:
    """Lock a directory whose writer is gone; None while it lives. Close it to let go."""
    descriptor = _open_lock(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def list_directories(root: Path) -> Sequence[Path]:
    """The journal directories under `root`, by name; none when `root` does not exist yet."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def worker_of(directory: Path) -> str:
    """The worker a directory belonged to."""
    return directory.name.rpartition(".")[0]


def _open_lock(directory: Path) -> int:
    return os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
