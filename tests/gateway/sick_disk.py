"""A real gateway whose journal's disk fails as long as a file says so, over the real disk.

The file names the operations that fail and with what: `EIO sync write`. It is looked for at every
step, so that a test makes the disk of another process fail, and well again, at an instant it knows.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.journal.disks import AskedDisk

VARIABLE = "TEST_SICK_DISK"
ALL = "create allocate write sync sync_length truncate rename sync_directory"


def program(module: str) -> Sequence[str]:
    """What `python` runs: that gateway, over such a disk."""
    return (
        "-c",
        "import meterplane.gateway.worker as worker; from tests.gateway.sick_disk import SickDisk;"
        f"worker.Disk = SickDisk; import {module} as m; raise SystemExit(m.main())",
    )


@contextmanager
def sick(file: Path, what: str) -> Iterator[None]:
    """The disk fails meanwhile."""
    file.with_suffix(".new").write_text(what)
    file.with_suffix(".new").rename(file)
    try:
        yield
    finally:
        file.unlink()


class SickDisk(AskedDisk):
    """Every step asks the file first."""

    def __init__(self) -> None:
        super().__init__(native_aio=False)
        self._file = Path(os.environ[VARIABLE])

    def _attempt(self, operation: str) -> None:
        try:
            error, *operations = self._file.read_text().split()
        except FileNotFoundError:
            return
        if operation in operations:
            number = getattr(errno, error)
            raise OSError(number, os.strerror(number))
