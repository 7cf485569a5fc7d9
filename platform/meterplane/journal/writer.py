"""The gateway's end of the journal: append at once, commit in groups, seal within half a second.

Guarantees:
- `append` has handed the frame to the kernel when it returns: a `kill -9` after it loses nothing.
- `commit` returns only when everything appended before it is on the disk, names included. One
  fdatasync runs at a time, in a thread; callers that arrive meanwhile share the next one, so the
  cost per request falls as load rises.
- A segment that holds a frame is sealed after `SEGMENT_AGE_S_MAX` or at `SEGMENT_BYTES_MAX`,
  whichever is first, also when no further frame comes: usage is visible within a second.
- After the first OSError from the disk, or a disk that does not answer for `COMMIT_TIMEOUT_S`, the
  writer is unhealthy for ever: nothing is written, synced or renamed any more, every call raises
  `JournalUnavailable`. A failed fsync is not retried: the kernel may have dropped the pages. What
  is readable of the files is recovered by the shipper once this writer is closed; a gateway goes
  on by opening another writer, which gets a fresh directory.

Does not know what frames mean, nor who reads them. Lives on one event loop; not thread-safe.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from uuid import UUID

from meterplane.contracts import usage
from meterplane.journal import directory as journal_directory
from meterplane.journal.disk import Disk
from meterplane.journal.segment import SegmentFile, next_segment_id
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import SEGMENT_AGE_S_MAX

# A stalled disk is a failed disk: clients wait on it for their last byte. Far above a slow fsync
# (a busy cloud disk: below 1 s), far below the 30 s after which a client gives up.
COMMIT_TIMEOUT_S = 10.0


class JournalUnavailable(WorldError):
    """The journal cannot take usage, so nothing may be served."""

    def __init__(self, message: str) -> None:
        super().__init__("journal_unavailable", message, status=503, retry_after_s=5)


class JournalWriter:
    """One worker's journal. Use `open`; call `append` and `commit` on one running event loop."""

    def __init__(self, directory: Path, worker: str, lock_descriptor: int, disk: Disk) -> None:
        self.directory = directory
        self._worker = worker
        self._lock_descriptor = lock_descriptor
        self._disk = disk
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-sync")
        self._failure: str | None = None
        self._closed = False
        self._segment: SegmentFile | None = None
        self._sealing: list[SegmentFile] = []
        self._age_timer: asyncio.TimerHandle | None = None
        self._names_changed = False
        self._appended = 0  # frames handed to the kernel
        self._durable = 0  # of these, on the disk
        self._round: asyncio.Task[None] | None = None
        self._last_segment_id: UUID | None = None
        self._stuck = False  # the thread never came back: its descriptors are not ours to close

    @classmethod
    def open(cls, root: Path, worker: str, disk: Disk | None = None) -> Self:
        """Start a journal for `worker` in a new directory under `root`.

        Raises JournalUnavailable if the disk refuses, ValueError for a name no directory can have.
        """
        disk = disk or Disk()
        try:
            directory, lock_descriptor = journal_directory.create(root, worker, disk)
        except OSError as error:
            raise JournalUnavailable(
                f"the journal under {root} cannot be opened: {error}"
            ) from error
        return cls(directory, worker, lock_descriptor, disk)

    @property
    def healthy(self) -> bool:
        """False once the disk failed or the journal was closed: admit nothing."""
        return self._failure is None and not self._closed

    def append(self, frame: usage.Frame) -> None:
        """Write one frame to the page cache. Raises JournalUnavailable."""
        self._refuse_if_unhealthy()
        payload = usage.encode(frame)
        try:
            self._segment_with_room().append(payload)
        except OSError as error:
            self._fail(f"writing failed: {error}")
            self._refuse_if_unhealthy()
        self._appended += 1

    async def commit(self) -> None:
        """Return when all that was appended so far survives a power cut, or JournalUnavailable."""
        target = self._appended
        while True:
            self._refuse_if_failed()
            if self._durable >= target:
                return
            # Shielded: a client that leaves must not take the sync of all others with it.
            await asyncio.shield(self._ensure_round())

    async def close(self) -> None:
        """Seal what is there, then release the directory to the shipper. Safe to call twice.

        Raises JournalUnavailable if the last frames could not be made durable; the directory is
        released nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        self._retire_segment()
        try:
            while self._failure is None and (self._sealing or self._round):
                await asyncio.shield(self._ensure_round())
        finally:
            self._thread.shutdown(wait=False)
            self._abandon()
            os.close(self._lock_descriptor)
        self._refuse_if_failed()

    def _segment_with_room(self) -> SegmentFile:
        if self._segment is not None and self._segment.full:
            self._retire_segment()
            self._ensure_round()
        if self._segment is None:
            self._last_segment_id = next_segment_id(self._last_segment_id)
            self._segment = SegmentFile(
                self.directory, self._last_segment_id, self._worker, self._disk
            )
            self._names_changed = True
            loop = asyncio.get_running_loop()
            self._age_timer = loop.call_later(SEGMENT_AGE_S_MAX, self._seal_aged)
        return self._segment

    def _seal_aged(self) -> None:
        if self.healthy:
            self._retire_segment()
            self._ensure_round()

    def _retire_segment(self) -> None:
        """The current segment takes no more frames; the next round syncs and seals it."""
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        if self._segment is not None:
            self._sealing.append(self._segment)
            self._segment = None

    def _ensure_round(self) -> asyncio.Task[None]:
        if self._round is None:
            self._round = asyncio.get_running_loop().create_task(self._run_round())
        return self._round

    async def _run_round(self) -> None:
        """One group commit. Covers what was appended when it starts; never raises."""
        sealing, self._sealing = self._sealing, []
        current, appended = self._segment, self._appended
        names_changed, self._names_changed = self._names_changed, False
        syncing = asyncio.get_running_loop().run_in_executor(
            self._thread, self._sync, sealing, current, names_changed
        )
        try:
            done, _ = await asyncio.wait({syncing}, timeout=COMMIT_TIMEOUT_S)
            self._stuck = not done
            if self._stuck:
                self._fail(f"the disk did not answer for {COMMIT_TIMEOUT_S} s")
            else:
                syncing.result()
                self._durable = appended
        except OSError as error:
            self._fail(f"syncing failed: {error}")
            self._sealing += [segment for segment in sealing if not segment.closed]
        except BaseException:
            self._stuck = True
            self._fail("syncing was stopped")
            raise
        finally:
            self._round = None
        if self._sealing and self.healthy:
            self._ensure_round()

    def _sync(
        self, sealing: list[SegmentFile], current: SegmentFile | None, names_changed: bool
    ) -> None:
        """In the thread. Bytes before names: a name never promises bytes that are not there."""
        for segment in sealing:
            segment.sync()
            segment.seal()
        if current is not None:
            current.sync()
        if sealing or names_changed:
            self._disk.sync_directory(self.directory)

    def _fail(self, what: str) -> None:
        if self._failure is None:
            self._failure = f"journal {self.directory.name}: {what}"
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None

    def _abandon(self) -> None:
        if self._stuck:
            return
        for segment in [*self._sealing, *([self._segment] if self._segment else [])]:
            segment.abandon()
        self._sealing, self._segment = [], None

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise JournalUnavailable(self._failure)

    def _refuse_if_unhealthy(self) -> None:
        self._refuse_if_failed()
        if self._closed:
            raise JournalUnavailable(f"journal {self.directory.name} is closed")
