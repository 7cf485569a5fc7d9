"""What waits on this disk to be taken in, and how much room is left.

Guarantees: counting gives the interpreter away again and again where it is asked to, for a week of
segments is a million files; a segment that is taken in meanwhile is no error. Does not know what a
segment holds, nor whether it was sent.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from meterplane.journal.directory import list_directories
from meterplane.journal.segment import SEALED_SUFFIX
from meterplane.kernel import clock

FILES_AT_ONCE = 256  # x ~3 us; then whoever waits for the interpreter has it


@dataclass(frozen=True, slots=True)
class Backlog:
    """Sealed segments under one root, the oldest of which was sealed at `oldest_at_ms`; 0: none."""

    size_bytes: int
    segments: int
    oldest_at_ms: int
    free_bytes: int

    @property
    def oldest_s(self) -> float:
        """For how long the oldest one waits."""
        return max(0, clock.now_ms() - self.oldest_at_ms) / 1000 if self.oldest_at_ms else 0.0


def free_bytes(root: Path) -> int:
    """Room for us on the disk of `root`. Raises OSError."""
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize


def measure(root: Path, breath_s: float = 0.0) -> Backlog:
    """Count what is there; pauses for `breath_s` again and again. Raises OSError."""
    size_bytes = segments = seen = 0
    oldest_ns = 0
    for directory in list_directories(root):
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                seen += 1
                if breath_s and not seen % FILES_AT_ONCE:
                    time.sleep(breath_s)
                if not entry.name.endswith(SEALED_SUFFIX):
                    continue
                with contextlib.suppress(FileNotFoundError):  # taken in meanwhile
                    found = entry.stat()
                    size_bytes += found.st_size
                    segments += 1
                    oldest_ns = min(oldest_ns or found.st_mtime_ns, found.st_mtime_ns)
    return Backlog(size_bytes, segments, oldest_ns // 1_000_000, free_bytes(root))
