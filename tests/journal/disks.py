"""Disks that fail as told, over the real one."""

import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from meterplane.journal.disk import Disk
from meterplane.journal.syncing import Done, Syncer


class AskedDisk(Disk):
    """Each step is asked for by its name first: `_attempt` may refuse it."""

    def _attempt(self, operation: str) -> None:
        raise NotImplementedError

    def create(self, path: Path) -> int:
        self._attempt("create")
        return super().create(path)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        self._attempt("allocate")
        super().allocate(descriptor, size_bytes)

    def write_all(self, descriptor: int, data: bytes) -> None:
        self._attempt("write")
        super().write_all(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._attempt("sync")
        super().sync(descriptor)

    def sync_length(self, descriptor: int) -> None:
        self._attempt("sync_length")
        super().sync_length(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        self._attempt("truncate")
        super().truncate(descriptor, length)

    def rename(self, source: Path, target: Path) -> None:
        self._attempt("rename")
        super().rename(source, target)

    def sync_directory(self, directory: Path) -> None:
        self._attempt("sync_directory")
        super().sync_directory(directory)


class CountingDisk(Disk):
    """Counts syncs and takes `sync_s` for each, like a slow disk."""

    def __init__(self, sync_s: float = 0.0) -> None:
        super().__init__(native_aio=False)  # so that each commit's sync comes through here
        self.syncs = 0
        self.sync_s = sync_s
        self.touched: list[str] = []

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        time.sleep(self.sync_s)
        super().sync(descriptor)


class FailingDisk(AskedDisk, CountingDisk):
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


class HangingDisk(Disk):
    """A disk whose sync does not come back until `release` is set."""

    def __init__(self) -> None:
        super().__init__(native_aio=False)
        self.release = threading.Event()

    def sync(self, descriptor: int) -> None:
        self.release.wait(20)


class GatedDisk(CountingDisk):
    """Each sync waits to be let through; after `open`, none does."""

    def __init__(self) -> None:
        super().__init__()
        self._passes = threading.Semaphore(0)
        self._opened = threading.Event()

    def let_one_through(self) -> None:
        self._passes.release()

    def open(self) -> None:
        self._opened.set()
        self._passes.release()

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if not self._opened.is_set():
            self._passes.acquire(timeout=20)
        Disk.sync(self, descriptor)


class SlowKeepingDisk(Disk):
    """Takes `slow_s`, or until `hurry`, to make a new or a sealed segment durable; commits are as
    fast as ever."""

    def __init__(self, slow_s: float) -> None:
        super().__init__()
        self.slow_s = slow_s
        self._hurried = threading.Event()

    def hurry(self) -> None:
        self._hurried.set()

    def sync_length(self, descriptor: int) -> None:
        self._hurried.wait(self.slow_s)
        super().sync_length(descriptor)


class AnsweringDisk(Disk):
    """The kernel's own syncing, of which the answer is replaced: by `error`, or by silence."""

    def __init__(self) -> None:
        super().__init__()
        self.error: OSError | None = None
        self.silent = False
        self.starts = 0

    def syncer(self, descriptor: int) -> Syncer:
        return _AnsweringSyncer(self, super().syncer(descriptor))


class _AnsweringSyncer:
    def __init__(self, disk: AnsweringDisk, real: Syncer) -> None:
        self.method = real.method
        self._disk = disk
        self._real = real

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        self._disk.starts += 1

        def answer(error: OSError | None) -> None:
            if not self._disk.silent:
                done(self._disk.error or error)

        self._real.start(descriptors, answer)

    def close(self) -> None:
        self._real.close()
