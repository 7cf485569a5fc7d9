"""Whether a disk takes a journal: asked of the disk itself, by doing what a journal does.

Guarantees: when `probe` returns, a new file was given the room of the two segments that a failed
journal is replaced with, written, synced, renamed and its name synced in that very directory, and
it is gone again. It blocks; a disk that hangs holds it up.
"""

import contextlib
from pathlib import Path

from meterplane.journal.disk import Disk
from meterplane.journal.segment import allocation_bytes
from meterplane.kernel.ids import uuid7

_CONTENT = b"MPJ1 probe".ljust(4096, b".")


def probe(root: Path, disk: Disk) -> None:
    """Raises OSError while the disk is not well."""
    before = root / f".probe.{uuid7()}"
    after = before.with_suffix(".ok")
    descriptor = disk.create(before)
    try:
        disk.allocate(descriptor, 2 * allocation_bytes())
        disk.write_all(descriptor, _CONTENT)
        disk.sync(descriptor)
        disk.rename(before, after)
        disk.sync_directory(root)
    finally:
        disk.close(descriptor)
        for path in (before, after):
            with contextlib.suppress(OSError):
                disk.remove(path)
