"""The few things the journal asks of a disk, in one place, so that a test can make them fail.

`write_all` returns only when every byte is in the page cache: from then on a killed process loses
nothing. `sync`, `sync_length` and `sync_directory` return only when a power cut loses nothing
either; `syncer` gives what runs `sync` beside the event loop, without a thread where it can. Each
raises OSError; none retries, because after a failed fsync Linux may drop the dirty pages and report
the next fsync as a success (PostgreSQL's "fsyncgate", 2018).
"""

import contextlib
import errno
import os
from pathlib import Path

from meterplane.journal.aio import AioSyncer
from meterplane.journal.syncing import Syncer, ThreadSyncer

_ZEROS = bytes(64 * 1024)


class Disk:
    """The real disk. Without `native_aio` every sync goes through `self.sync`, in a thread."""

    def __init__(self, *, native_aio: bool = True) -> None:
        self._native_aio = native_aio

    def create(self, path: Path) -> int:
        """A descriptor, at the start, of a file that did not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Make the file this long, in zeros, with blocks of its own: writes into it need no room.

        On a file system that copies on write (btrfs, ZFS) the promise of room is weaker; there a
        full disk shows in the write or the sync.
        """
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            for offset in range(0, size_bytes, len(_ZEROS)):
                os.pwrite(descriptor, _ZEROS[: size_bytes - offset], offset)

    def write_all(self, descriptor: int, data: bytes) -> None:
        """Write on from where the last write ended; a short write is continued or raises."""
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])

    def sync(self, descriptor: int) -> None:
        """Make the file's bytes and its size durable."""
        os.fdatasync(descriptor)

    def sync_length(self, descriptor: int) -> None:
        """The same for a file that was just allocated or cut: all that is known about it."""
        os.fsync(descriptor)

    def syncer(self, descriptor: int) -> Syncer:
        """What runs `sync` beside the event loop. `descriptor` is any file of the journal."""
        if self._native_aio:
            # A kernel, an architecture or a sandbox without it is no trouble: a thread will do.
            with contextlib.suppress(OSError):
                return AioSyncer(descriptor)
        return ThreadSyncer(self.sync)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut a file; durable after `sync_length`."""
        os.ftruncate(descriptor, length)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its new name; atomic, durable after `sync_directory`."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file nobody needs. Whether that is durable does not matter."""
        path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Give a descriptor back. Says nothing about durability."""
        os.close(descriptor)
