"""The gateway's end of the journal: append at once, commit in groups, seal within half a second.

Guarantees:
- `append` has handed the frame to the kernel when it returns: a `kill -9` after it loses nothing.
- `commit` returns only when everything appended before it is on the disk, names included. One
  round of fdatasync runs at a time (`rounds`), by native AIO or in a thread (`sync_method`);
  callers that arrive meanwhile share the next one, so the cost per request falls as load rises. In
  the mode `process` it returns at once: what was appended survives the process, and a power cut
  only from when its segment is sealed.
- A segment that holds a frame is sealed after `SEGMENT_AGE_S_MAX` or at `SEGMENT_BYTES_MAX`,
  whichever is first, also when no further frame comes: usage is visible within a second. The next
  one is ready before it is needed, and sealing goes on beside commits (`keeper`).
- A full disk is seen before it hurts: the next segment is allocated while the present one is
  written. When there is no room for it the writer is not `healthy` and takes no further ADMIT;
  SETTLE and CHECKPOINT go on in the room that the present segment has: SEGMENT_BYTES_MAX less what
  the moments until then took, or some 1,500 settles of 0.7 kB. It is not sealed by age meanwhile,
  so its room is not given up. Room is asked for again every `NEXT_SEGMENT_POLL_S`; once it is there
  the writer is healthy again. If the present segment fills up before, that is an error like any.
- After any other OSError from the disk, or a disk that does not answer for `COMMIT_TIMEOUT_S`, the
  writer is unhealthy for ever: nothing is written, synced or renamed any more, every call raises
  `JournalUnavailable`. A failed fsync is not retried: the kernel may have dropped the pages. What
  is readable of the files is recovered by the shipper once this writer is closed. A gateway goes on
  with another writer in a fresh directory, and with one that `resume`s this directory, in files of
  its own, for what was under way here (`succession`).

Does not know what frames mean, but that an ADMIT is the first of a request; nor who reads them.
Lives on one event loop; not thread-safe.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self, get_args
from uuid import UUID

from meterplane.contracts import usage
from meterplane.journal import directory as journal_directory
from meterplane.journal.directory import worker_of
from meterplane.journal.disk import Disk
from meterplane.journal.gauges import Gauges
from meterplane.journal.keeper import Keeper, NoRoom
from meterplane.journal.rounds import Round, Rounds
from meterplane.journal.segment import SegmentFile, next_segment_id
from meterplane.journal.stalls import StallWatch
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import SEGMENT_AGE_S_MAX

# A stalled disk is a failed disk: clients wait on it for their last byte. Above a slow fsync (8 s,
# where somebody else writes a gigabyte), below the 30 s after which a client gives up.
COMMIT_TIMEOUT_S = 20.0
# How often a segment that is due to be sealed, but has no successor yet, looks for one.
NEXT_SEGMENT_POLL_S = 0.1

Mode = Literal["durable", "process"]


class JournalUnavailable(WorldError):
    """The journal cannot take usage, so nothing may be served."""

    def __init__(self, message: str) -> None:
        super().__init__("journal_unavailable", message, status=503, retry_after_s=5)


class JournalWriter(Gauges):
    """One worker's journal. Use `open`; call `append` and `commit` on one running event loop."""

    def __init__(
        self,
        directory: Path,
        lock_descriptor: int,
        disk: Disk,
        keeper: Keeper,
        mode: Mode,
        last_segment_id: UUID | None = None,
    ) -> None:
        self.directory = directory
        self.mode = mode
        self.on_failure: Callable[[], None] = _nobody_asks
        self.last_commit_s = 0.0
        self.lock_descriptor = lock_descriptor
        self._keeper = keeper
        self._rounds = Rounds(disk, lock_descriptor, self._gather_round, self._round_ended)
        self.failure: str | None = None  # for ever, once the disk failed
        self._no_room: str | None = None
        self._closed = False
        self._refusing = False  # one of the three above; what `append` looks at
        self._last_segment_id = next_segment_id(last_segment_id)
        self._spare: SegmentFile | None = keeper.prepare_now(self._last_segment_id)
        self._preparing = False
        self._segment: SegmentFile | None = None
        self._retired: list[SegmentFile] = []  # full or old; the next round syncs them
        self._sealing: deque[tuple[SegmentFile, int]] = deque()  # with the frames up to their end
        self._names_changed = False
        self._age_timer: asyncio.TimerHandle | None = None
        self._stalls = StallWatch(COMMIT_TIMEOUT_S, self._busy_since, self._stalled)
        self._appended = 0  # frames handed to the kernel
        self._durable = 0  # of these, on the disk
        self._unsynced_since = 0.0  # monotonic; of the oldest frame that is not, or a little before
        self._retired_bytes = 0
        self._progress: asyncio.Future[None] | None = None
        self._stuck = False  # the disk never came back: its descriptors are not ours to close

    @classmethod
    def open(
        cls, root: Path, worker: str, disk: Disk | None = None, *, mode: Mode = "durable"
    ) -> Self:
        """Start a journal for `worker` in a new directory under `root`.

        Raises JournalUnavailable if the disk refuses, ValueError for a name no directory can have
        or a mode there is not.
        """
        if mode not in get_args(Mode):
            raise ValueError(f"{mode!r} is no mode of a journal: {', '.join(get_args(Mode))}")
        disk = disk or Disk()
        lock_descriptor = None
        try:
            directory, lock_descriptor = journal_directory.create(root, worker, disk)
            return cls(directory, lock_descriptor, disk, Keeper(directory, worker, disk), mode)
        except OSError as error:
            if lock_descriptor is not None:
                os.close(lock_descriptor)
            raise JournalUnavailable(
                f"the journal under {root} cannot be opened: {error}"
            ) from error

    @classmethod
    def resume(cls, failed: "JournalWriter", lock_descriptor: int, disk: Disk) -> "JournalWriter":
        """Go on in the directory of a failed writer that was left, in files behind all of its own.

        What it gave no promise for is to be written again. Raises OSError; the lock stays held.
        """
        directory, last = failed.directory, failed._last_segment_id
        keeper = Keeper(directory, worker_of(directory), disk)
        return cls(directory, lock_descriptor, disk, keeper, failed.mode, last)

    @property
    def failed(self) -> bool:
        """True once the disk failed."""
        return self.failure is not None

    @property
    def healthy(self) -> bool:
        """False when there is no room, the disk failed or the journal was closed: admit nothing."""
        return not self._refusing

    @property
    def sync_method(self) -> str:
        """How commits reach the disk: `aio`, `thread`, or `none` where they do not wait for it."""
        return self._rounds.method if self.mode == "durable" else "none"

    def append(self, frame: usage.Frame) -> None:
        """Write one frame to the page cache. Raises JournalUnavailable."""
        if self._refusing:
            self._refuse_unless_it_ends(frame)
        payload = usage.encode(frame)
        segment = self._segment
        try:
            if segment is None or segment.full:
                segment = self._next_segment()
            segment.append(payload)
        except OSError as error:
            self._fail(f"writing failed: {error}")
            self._refuse_if_failed()
        if self._durable == self._appended:
            self._unsynced_since = time.monotonic()
        self._appended += 1

    async def commit(self) -> None:
        """Return when all that was appended so far survives a power cut, or JournalUnavailable.

        In the mode `process`: when it survives the process, so at once.
        """
        if self.failure is not None:
            self._refuse_if_failed()
        target = self._appended
        if self._durable >= target or self.mode == "process":
            return
        await self._rounds.wait(target)
        if self._durable < target:
            self._refuse_if_failed()

    async def leave(self) -> None:
        """Of a failed one: give back all but the lock of the directory, which is the caller's now.

        What is still under way at the disk is waited for; cancelled, its descriptors are left open.
        """
        self._closed = self._refusing = True
        await self._end()

    async def close(self) -> None:
        """Seal what is there, then release the directory to the shipper. Safe to call twice.

        Raises JournalUnavailable if the last frames could not be made durable; the directory is
        released nevertheless.
        """
        if self._closed:
            return
        self._closed = self._refusing = True
        try:
            if self.failure is None:
                self._retire_segment()
            await self._end()
        finally:
            os.close(self.lock_descriptor)
        self._refuse_if_failed()

    async def _end(self) -> None:
        finished = False
        try:
            while self._busy and not self._stuck:
                self._progress = asyncio.get_running_loop().create_future()
                await self._progress
            finished = True
        finally:
            self._stuck = self._stuck or not finished
            self._release()

    @property
    def _busy(self) -> bool:
        to_do = self.failure is None and (self._retired or self._sealing)
        return bool(to_do or self._rounds.running or self._keeper.busy_since is not None)

    def _next_segment(self) -> SegmentFile:
        self._retire_segment()
        segment, self._spare = self._spare, None
        if segment is None:
            # Slower than we write. One that is being prepared now would come too late: its id is
            # below this one's, and ids rise in writing order.
            self._last_segment_id = next_segment_id(self._last_segment_id)
            segment = self._keeper.create(self._last_segment_id)
            self._names_changed = True
        self._segment = segment
        segment.begin()
        self._prepare_spare()
        loop = asyncio.get_running_loop()
        self._age_timer = loop.call_later(SEGMENT_AGE_S_MAX, self._seal_aged)
        return segment

    def _prepare_spare(self) -> None:
        if self._preparing or self._spare is not None:
            return
        self._preparing = True
        self._last_segment_id = next_segment_id(self._last_segment_id)
        self._keeper.prepare(self._last_segment_id, self._spare_prepared)
        self._stalls.arm()

    def _spare_prepared(self, spare: SegmentFile | None, error: OSError | None) -> None:
        self._preparing = False
        if isinstance(error, NoRoom):
            self._no_room = str(error)
            self._refusing = True
        elif error is not None:
            self._fail(f"preparing a segment failed: {error}")
        elif spare is not None:
            self._take_spare(spare)
        self._progressed()

    def _take_spare(self, spare: SegmentFile) -> None:
        if self.failure is not None:
            spare.abandon()
        elif self._segment is not None and spare.segment_id < self._segment.segment_id:
            spare.discard()
            if not self._closed:
                self._prepare_spare()
        else:
            self._spare = spare
            self._no_room = None
            self._refusing = self._closed

    def _seal_aged(self) -> None:
        self._age_timer = None
        if self.failure is not None or self._closed:
            return
        if self._spare is not None:
            self._retire_segment()
            return
        # What is allocated to this one is all the room there is: it is kept until there is more.
        self._prepare_spare()
        loop = asyncio.get_running_loop()
        self._age_timer = loop.call_later(NEXT_SEGMENT_POLL_S, self._seal_aged)

    def _retire_segment(self) -> None:
        """The current segment takes no more frames; synced by the next round, it is sealed."""
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        segment, self._segment = self._segment, None
        if segment is None:
            return
        self._retired_bytes += segment.length
        if self.mode == "durable":
            self._retired.append(segment)
            self._rounds.ask()
        else:
            self._seal(segment)

    def _gather_round(self) -> Round:
        retired, self._retired = self._retired, []
        descriptors = [segment.descriptor for segment in retired]
        if self._segment is not None:
            descriptors.append(self._segment.descriptor)
        this = Round(self._appended, retired, descriptors)
        if self._names_changed:
            self._names_changed = False
            this.names = lambda done: self._keeper.sync_names(lambda _, error: done(error))
        self._stalls.arm()
        return this

    def _round_ended(self, this: Round) -> None:
        if self.failure is None and this.error is None:
            self._durable = this.covers
            self._unsynced_since = this.began  # whatever it does not cover came later
            self.last_commit_s = time.monotonic() - this.began
            for segment in this.retired:
                self._seal(segment)
        else:
            self._retired += this.retired
            if this.error is not None:
                self._fail(f"syncing failed: {this.error}")
        self._progressed()

    def _seal(self, segment: SegmentFile) -> None:
        self._sealing.append((segment, self._appended))
        self._keeper.seal(segment, self._sealed)
        self._stalls.arm()

    def _sealed(self, _: None, error: OSError | None) -> None:
        if error is None:
            covers = self._sealing.popleft()[1]
            if self.mode == "process":
                self._durable = covers
                self._unsynced_since = time.monotonic()  # too late by what sealing took
        elif self.failure is None:
            self._fail(f"sealing failed: {error}")
        self._progressed()

    def _busy_since(self) -> float | None:
        running, keeping_since = self._rounds.running, self._keeper.busy_since
        return min(
            (at for at in (running.began if running else None, keeping_since) if at is not None),
            default=None,
        )

    def _stalled(self) -> None:
        self._stuck = True
        self._fail(f"the disk did not answer for {COMMIT_TIMEOUT_S} s")

    def _fail(self, what: str) -> None:
        first = self.failure is None
        if first:
            self.failure = f"journal {self.directory.name}: {what}"
        self._refusing = True
        self._keeper.stop()
        self._rounds.stop()
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        self._progressed()
        if first:
            self.on_failure()

    def _progressed(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _release(self) -> None:
        self._stalls.cancel()
        self._keeper.close()
        if not self._stuck:
            self._rounds.close()
            if self.failure is None and self._spare is not None:
                self._spare.discard()
            for segment in (self._spare, self._segment, *self._retired):
                if segment is not None:
                    segment.abandon()
            for segment, _ in self._sealing:
                segment.abandon()

    def _refuse_if_failed(self) -> None:
        if self.failure is not None:
            raise JournalUnavailable(self.failure)

    def _refuse_unless_it_ends(self, frame: usage.Frame) -> None:
        self._refuse_if_failed()
        if self._closed:
            raise JournalUnavailable(f"journal {self.directory.name} is closed")
        if isinstance(frame, usage.Admit):
            raise JournalUnavailable(f"journal {self.directory.name}: {self._no_room}")


def _nobody_asks() -> None:
    """A failure is told to whoever calls."""
