"""The journal of one worker, which outlives its disk's failures: writers that follow one another.

The problem: after a failed fsync nothing may be written into those files again, and what was under
way there must end all the same, once, durably, before its caller sees the end. Choice: a directory
is one life. When its writer fails, no request is admitted; as soon as a real probe of the disk
succeeds (`probe`), a writer in a fresh directory admits, and a writer with files of its own in the
old directory (`JournalWriter.resume`) is given what the failed one gave no promise for: of each
request without a SETTLE its ADMIT and last CHECKPOINT, of each other its SETTLE. From then on
requests end where they began. When the last of a directory has, it is sealed and let go: the
shipper recovers the failed file in it as it does a dead gateway's.

Guarantees:
- All frames of a request are in one directory, so recovery sees the SETTLE of every ADMIT it sees:
  one request is one event, without anybody comparing directories. A SETTLE that is readable in the
  failed file as well is the same one, byte for byte.
- `commit` returns when the SETTLE of that request is durable. Meanwhile it waits for the disk, for
  as long as it takes: who gives up is the caller. `checkpoint` is False while nothing can be
  written down: then nothing more may be delivered until `resumed`.
- Admissions stop in the turn of the loop in which the failure is seen. The failed files are not
  touched again, not even closed where the disk hangs.

Limits: a directory that stays unusable though its root is well again is given up: its requests get
no end, and are settled by recovery from what is readable. A process that is killed meanwhile leaves
what the failed files hold. What is kept in memory is one ADMIT, CHECKPOINT and SETTLE per request
under way (in the mode `process`, also of the last half second). Lives on one event loop.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from meterplane.contracts.usage import Admit, Checkpoint, Settle
from meterplane.journal.backlog import Backlog
from meterplane.journal.disk import Disk
from meterplane.journal.life import Life, Open
from meterplane.journal.probe import probe
from meterplane.journal.syncing import DiskThread, Result
from meterplane.journal.writer import JournalUnavailable, JournalWriter, Mode
from meterplane.kernel.failpoints import failpoint

log = logging.getLogger(__name__)

# From the first look at a failed disk to the next, doubled up to the second: it is found well again
# 2 s late at the most, and a disk that hangs as soon as it answers.
MEND_PAUSE_S = 0.1
MEND_PAUSE_S_MAX = 2.0
REFUSALS_MAX = 6  # of one directory, in 5 s or more; then it is given up
TIDY_EVERY_S = 0.5  # an old directory is the shipper's this long after its last request has ended
LEAVE_TIMEOUT_S = 1.0  # for what a failed writer still has under way; then it hangs


class Journal:
    """Use `start`; then `admit`, `checkpoint`, `settle` and `commit` on one running event loop."""

    def __init__(self, root: Path, worker: str, disk: Disk, mode: Mode) -> None:
        """Raises what `JournalWriter.open` raises."""
        self._root, self._worker, self._disk, self._mode = root, worker, disk, mode
        self._life = Life(JournalWriter.open(root, worker, disk, mode=mode))
        self._life.writer.on_failure = self._writer_failed
        self._old: list[Life] = []  # with requests under way
        self._frames_before = 0  # of writers that are no more
        self.held = ""  # why nothing is admitted though the disk is well
        self.backlog: Backlog | None = None  # as it was last measured
        self._closed = False
        self._closing = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._letting_go: set[asyncio.Task[None]] = set()
        self._thread = DiskThread("journal-mend")
        self.failures = 0
        self.on_new_directory: Callable[[Path], None] = lambda directory: None

    @property
    def directory(self) -> Path:
        """Where requests are admitted now."""
        return self._life.writer.directory

    @property
    def writer(self) -> JournalWriter:
        """Of the requests that are admitted now: for whoever reads its gauges."""
        return self._life.writer

    @property
    def healthy(self) -> bool:
        """False while nothing is admitted."""
        return not self.held and not self._life.over and self._life.writer.healthy

    @property
    def frames_appended(self) -> int:
        """Frames handed to the kernel, by all writers."""
        old = sum(life.writer.frames_appended for life in self._old)
        return self._frames_before + old + self._life.writer.frames_appended

    @property
    def directories_failed(self) -> int:
        """Directories that failed and are not let go yet."""
        return len(self._old) + self._life.over

    def hold(self, why: str) -> None:
        """Admit nothing from now on, for a reason; '' for none. What is under way ends."""
        if why and not self.held:
            log.error("admitting nothing: %s", why)
        elif self.held and not why:
            log.warning("admitting again")
        self.held = why

    def check(self) -> None:
        """Raises JournalUnavailable while nothing is admitted."""
        if self.held:
            raise JournalUnavailable(f"nothing is admitted: {self.held}")
        if not self.healthy:
            raise JournalUnavailable("the journal takes no usage now")

    def admit(self, frame: Admit) -> None:
        """Write an ADMIT. Raises JournalUnavailable: then nothing may be forwarded.

        Of a request that is under way, to another model: where it began.
        """
        life = self._home(frame.request_id)
        if (self.held or life.over) and frame.request_id not in life.open:
            self.check()
        life.writer.append(frame)
        life.open[frame.request_id] = Open(frame)

    def checkpoint(self, frame: Checkpoint) -> bool:
        """Write a CHECKPOINT. False when it is not with the kernel: wait for `resumed`."""
        life = self._home(frame.request_id)
        entry = life.open.get(frame.request_id)
        if entry is not None:
            entry.checkpoint = frame
        try:
            life.writer.append(frame)
        except JournalUnavailable:
            return False
        return True

    async def resumed(self, request_id: UUID) -> None:
        """Return when all that was told of a request is with the kernel. Or JournalUnavailable."""
        life = self._home(request_id)
        while life.writer.failed:
            await self._next_writer(life)

    def settle(self, frame: Settle) -> None:
        """Write a SETTLE now, or as soon as it can be: `commit` tells."""
        life = self._home(frame.request_id)
        entry = life.open.get(frame.request_id)
        if entry is None:
            entry = life.open[frame.request_id] = Open(None)
        entry.settle = frame
        try:
            life.write_settle(entry)
        except JournalUnavailable:
            entry.written_by = 0

    async def commit(self, request_id: UUID) -> None:
        """Return when the SETTLE of a request is durable (mode `process`: with the kernel).

        Raises JournalUnavailable when that will not be: then the end of its answer must not leave.
        """
        life = self._home(request_id)
        while (entry := life.open.get(request_id)) is not None:
            try:
                if entry.written_by != life.writers:
                    life.write_settle(entry)
                await life.writer.commit()
                break
            except JournalUnavailable:
                await self._next_writer(life)
        life.sweep()

    async def close(self) -> None:
        """Seal what is there, then release all directories. Raises JournalUnavailable."""
        self._closed = True
        self._closing.set()
        for task in (self._mending, self._tidying):
            if task is not None:  # what it has just opened is to be closed
                await asyncio.wait({task}, timeout=LEAVE_TIMEOUT_S)
                task.cancel()
        self._thread.close()
        lives = [life for life in (*self._old, self._life) if not life.given_up]
        for life in lives:
            life.resumed.set()
        if self._letting_go:
            await asyncio.wait(self._letting_go)
        failure = None
        for life in lives:
            try:
                await self._close(life)
            except JournalUnavailable as unavailable:
                failure = unavailable
        if failure is not None:
            raise failure

    def _home(self, request_id: UUID) -> Life:
        if self._old and request_id not in self._life.open:
            for life in self._old:
                if request_id in life.open:
                    return life
        return self._life

    async def _next_writer(self, life: Life) -> None:
        if not self._closed and life.broken:
            await life.resumed.wait()
        if self._closed or life.given_up:
            raise JournalUnavailable("the journal took no more usage of this request")

    # --- when a disk has failed

    def _writer_failed(self) -> None:
        self.failures += 1
        broken = [life for life in (*self._old, self._life) if life.broken]
        for life in broken:
            life.over = True
            if life.resumed.is_set():
                life.resumed = asyncio.Event()
        if broken and not self._closed and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._mend())

    async def _mend(self) -> None:
        pause_s, said = MEND_PAUSE_S, ""
        while not self._closed and (self._life.over or any(life.broken for life in self._old)):
            broken = [life for life in (*self._old, self._life) if life.broken]
            try:
                for life in broken:
                    await self._leave(life)
                await self._in_thread(lambda: probe(self._root, self._disk))
                failpoint("journal.replace.after_probe")
                await self._replace(broken)
            except (OSError, JournalUnavailable) as trouble:
                if str(trouble) != said:
                    said = str(trouble)
                    log.error("the journal's disk is not well yet: %s", said)
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, MEND_PAUSE_S_MAX)
        if not self._closed:
            log.warning("the journal is whole again: %s", self.directory)

    async def _leave(self, life: Life) -> None:
        if life.lock is not None:
            return
        log.error("admitting nothing: %s", life.writer.failure)
        life.sweep()  # a failed writer makes nothing durable any more: the last time
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await life.writer.leave()
        life.lock = life.writer.lock_descriptor

    async def _replace(self, broken: list[Life]) -> None:
        """A writer for what is under way in each of these, and a fresh directory for what comes."""
        trouble: OSError | JournalUnavailable | None = None
        for life in broken:
            if not life.open:
                continue
            try:
                await self._resume(life)
            except (OSError, JournalUnavailable) as refused:
                trouble = refused
                life.refusals += 1
        if self._life.over:
            fresh = await self._in_thread(
                lambda: JournalWriter.open(self._root, self._worker, self._disk, mode=self._mode)
            )
            failpoint("journal.replace.before_handover")
            self._hand_over(fresh)
        self._tidy()
        for life in self._old:  # the root takes a directory, and this one takes no file
            if life.broken and life.refusals >= REFUSALS_MAX:
                log.error("%s is given up: %s", life.writer.directory, trouble)
                life.given_up = True  # and kept: what began there ends nowhere else
                life.resumed.set()
                self._release_soon(life)
        if trouble is not None:
            raise trouble

    async def _resume(self, life: Life) -> None:
        """Raises OSError, JournalUnavailable; then it is as it was."""
        lock, failed = life.lock, life.writer
        if lock is None:
            return
        writer = await self._in_thread(lambda: JournalWriter.resume(failed, lock, self._disk))
        writer.on_failure = self._writer_failed
        self._frames_before += failed.frames_appended
        life.writer, life.lock = writer, None
        life.writers += 1
        life.settled.clear()
        for entry in life.open.values():
            if entry.settle is not None:
                life.write_settle(entry)
                continue
            for frame in (entry.admit, entry.checkpoint):
                if frame is not None:
                    writer.append(frame)
        failpoint("journal.replace.after_carry")
        await writer.commit()
        life.resumed.set()

    def _hand_over(self, fresh: JournalWriter) -> None:
        old = self._life
        fresh.on_failure = self._writer_failed
        self._life = Life(fresh)
        self._old.append(old)
        self.on_new_directory(fresh.directory)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.get_running_loop().create_task(self._keep_tidy())

    async def _keep_tidy(self) -> None:
        while not self._closed and any(not life.given_up for life in self._old):
            await self._pause(TIDY_EVERY_S)
            self._tidy()

    def _tidy(self) -> None:
        """Let go of the directories in which nothing is under way any more."""
        for life in list(self._old):
            life.sweep()
            if life.done:
                self._old.remove(life)
                self._release_soon(life)

    def _release_soon(self, life: Life) -> None:
        task = asyncio.get_running_loop().create_task(self._release(life))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _release(self, life: Life) -> None:
        with contextlib.suppress(JournalUnavailable):
            await self._close(life)

    async def _close(self, life: Life) -> None:
        life.resumed.set()
        self._frames_before += life.writer.frames_appended
        if life.lock is None:
            await life.writer.close()
        else:
            os.close(life.lock)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def told(result: Result | None, error: OSError | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # `work` has returned it

        self._thread.run(work, told)
        return await done
