"""What happens to a segment before its first frame and after its last, off the path of commits.

A thread of its own makes the next segment ready (created, allocated, name and allocation durable)
while the present one is written, and seals the one before (cut to its frames, synced, renamed, name
durable). Directory syncs take milliseconds on a busy disk; here no commit waits for them.

Guarantees: work is done in the order it was asked for, so segments are sealed in writing order.
Bytes before names: a name never promises bytes that are not there. After the first error, of a step
here or told by `stop`, no further step is taken, with one exception: a spare for which there was no
room is removed again, and another may be tried. Lives on the writer's loop; knows no frames.
"""

import contextlib
import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from meterplane.journal.disk import Disk
from meterplane.journal.segment import OPEN_SUFFIX, SegmentFile, allocation_bytes
from meterplane.journal.syncing import DiskThread
from meterplane.kernel.failpoints import failpoint

Result = TypeVar("Result")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(OSError):
    """There is no room for another segment. Nothing was lost; it may be tried again."""


class Keeper:
    """Prepares and seals the segments of one journal directory."""

    def __init__(self, directory: Path, worker: str, disk: Disk) -> None:
        self._directory = directory
        self._worker = worker
        self._disk = disk
        self._thread = DiskThread("journal-keeper")
        self._names_thread = DiskThread("journal-names")  # not started while it has no work
        self._stopped = False
        self._pending = 0
        self._moved_at = 0.0  # when its oldest piece of work became that

    @property
    def busy_since(self) -> float | None:
        """`time.monotonic` at which what it does now began, if it does anything."""
        return self._moved_at if self._pending else None

    def create(self, segment_id: UUID) -> SegmentFile:
        """A segment with room of its own, at once and by the caller; its name is not durable."""
        segment = SegmentFile(
            self._directory,
            segment_id,
            self._worker,
            self._disk,
            allocated_bytes=allocation_bytes(),
        )
        failpoint("journal.spare.after_allocate")
        return segment

    def prepare_now(self, segment_id: UUID) -> SegmentFile:
        """A spare. Blocks; raises OSError, `NoRoom` if there is none."""
        spare = None
        try:
            spare = self.create(segment_id)
            self._check()
            spare.sync_length()
            failpoint("journal.spare.after_sync")
            self._check()
            self._disk.sync_directory(self._directory)
            failpoint("journal.spare.after_directory_sync")
        except OSError as error:
            if spare is not None:
                spare.abandon()
            if error.errno not in _NO_ROOM:
                raise
            with contextlib.suppress(OSError):
                self._disk.remove(self._directory / f"{segment_id}{OPEN_SUFFIX}")
            raise NoRoom(error.errno, f"no room for another segment: {error.strerror}") from error
        return spare

    def prepare(
        self, segment_id: UUID, done: Callable[[SegmentFile | None, OSError | None], None]
    ) -> None:
        """Make a spare in the thread."""
        self._ask(lambda: self.prepare_now(segment_id), done)

    def seal(self, segment: SegmentFile, done: Callable[[None, OSError | None], None]) -> None:
        """Seal a segment that takes no more frames, in the thread."""

        def work() -> None:
            segment.truncate()
            failpoint("journal.seal.after_truncate")
            self._check()
            segment.sync_length()
            failpoint("journal.seal.after_sync")
            self._check()
            segment.seal()
            failpoint("journal.seal.before_directory_sync")
            self._check()
            self._disk.sync_directory(self._directory)
            failpoint("journal.seal.after_directory_sync")

        self._ask(work, done)

    def sync_names(self, done: Callable[[None, OSError | None], None]) -> None:
        """Make the directory durable. A commit waits for it: it goes past what is asked above."""

        def work() -> None:
            self._check()
            self._disk.sync_directory(self._directory)

        self._names_thread.run(work, done)

    def stop(self) -> None:
        """Take no further step; what is not begun fails."""
        self._stopped = True

    def close(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self._thread.close()
        self._names_thread.close()

    def _ask(
        self, work: Callable[[], Result], done: Callable[[Result | None, OSError | None], None]
    ) -> None:
        def step() -> Result:
            self._check()
            try:
                return work()
            except NoRoom:
                raise
            except BaseException:
                self._stopped = True
                raise

        def told(result: Result | None, error: OSError | None) -> None:
            self._pending -= 1
            self._moved_at = time.monotonic()
            done(result, error)

        if not self._pending:
            self._moved_at = time.monotonic()
        self._pending += 1
        self._thread.run(step, told)

    def _check(self) -> None:
        if self._stopped:
            raise OSError(errno.ECANCELED, "the journal has stopped")
