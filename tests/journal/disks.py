"""Disks that fail as told, over the real one."""

import errno
import os
import threading
import time
from pathlib import Path

from meterplane.journal.disk import Disk


class CountingDisk(Disk):
    """Counts syncs and takes `sync_s` for each, like a slow disk."""

    def __init__(self, sync_s: float = 0.0) -> None:
        self.syncs = 0
        self.sync_s = sync_s
        self.touched: list[str] = []

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        time.sleep(self.sync_s)
        super().sync(descriptor)


class FailingDisk(CountingDisk):
    """Fails the operations named in `failing` with `error`; notes every call after the first."""

    def __init__(self, error: int = errno.EIO) -> None:
        super().__init__()
        self.error = error
        self.failing: set[str] = set()
        self.failed = False

    def _attempt(self, operation: str) -> None:
        if self.failed:
            self.touched.append(operation)
        if operation in self.failing:
            self.failed = True
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path) -> int:
        self._attempt("create")
        return super().create(path)

    def write_all(self, descriptor: int, data: bytes) -> None:
        self._attempt("write")
        super().write_all(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._attempt("sync")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._attempt("rename")
        super().rename(source, target)

    def sync_directory(self, directory: Path) -> None:
        self._attempt("sync_directory")
        super().sync_directory(directory)


class HangingDisk(Disk):
    """A disk whose sync does not come back until `release` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def sync(self, descriptor: int) -> None:
        self.release.wait(20)
