"""The few things the journal asks of a disk, in one place, so that a test can make them fail.

`write_all` returns only when every byte is in the page cache: from then on a killed process loses
nothing. `sync` and `sync_directory` return only when a power cut loses nothing either. Each raises
OSError; none retries, because after a failed fsync Linux may drop the dirty pages and report the
next fsync as a success (PostgreSQL's "fsyncgate", 2018).
"""

import os
from pathlib import Path


class Disk:
    """The real disk."""

    def create(self, path: Path) -> int:
        """A descriptor for appending to a file that did not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write_all(self, descriptor: int, data: bytes) -> None:
        """Append all of `data`; a short write (a disk that fills up) is continued or raises."""
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])

    def sync(self, descriptor: int) -> None:
        """Make the file's bytes and its size durable."""
        os.fdatasync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its new name; atomic, durable after `sync_directory`."""
        os.rename(source, target)

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
