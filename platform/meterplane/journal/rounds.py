"""Group commit: one round of syncs at a time; who arrives while it runs shares the next.

Guarantees: a waiter is woken when a round that began after its last append has ended, or when the
rounds have stopped; the next round begins at once when one ends and somebody waits, before those it
served are woken. A round begins one turn of the loop after it is first asked for, so all who append
in one turn share it. A waiter that is cancelled takes nothing with it. Whether the round went well
is for the waiter to ask of the writer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from meterplane.journal.disk import Disk
from meterplane.journal.segment import SegmentFile
from meterplane.journal.syncing import Done, Syncer, ThreadSyncer
from meterplane.kernel.failpoints import failpoint

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Round:
    """What one round makes durable: `covers` frames of the journal, in these segments.

    `names`: what makes the directory durable, where a segment's name is not yet.
    """

    covers: int
    retired: list[SegmentFile]
    descriptors: list[int]
    names: Callable[[Done], None] | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    began: float = 0.0
    parts: int = 1
    error: OSError | None = None


class Rounds:
    """The rounds of one journal. `gather` tells what a round is to cover, `ended` hears of it."""

    def __init__(
        self,
        disk: Disk,
        descriptor: int,
        gather: Callable[[], Round],
        ended: Callable[[Round], None],
    ) -> None:
        self.running: Round | None = None
        self.stopped = False
        self._disk = disk
        self._syncer: Syncer = disk.syncer(descriptor)
        self._gather = gather
        self._ended = ended
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = False

    @property
    def method(self) -> str:
        """How files are synced: `aio` or `thread`."""
        return self._syncer.method

    def wait(self, appended: int) -> asyncio.Future[None]:
        """What ends with the round that covers `appended` frames."""
        waiter = asyncio.get_running_loop().create_future()
        running = self.running
        if running is not None and running.covers >= appended:
            running.waiters.append(waiter)
        else:
            self._waiting.append(waiter)
            if not self._asked:
                self.ask()
        return waiter

    def ask(self) -> None:
        """A round is due, whether somebody waits for it or not."""
        if not self._asked:
            self._asked = True
            if self.running is None:
                asyncio.get_running_loop().call_soon(self._start)

    def stop(self) -> None:
        """Begin no further round and let nobody wait."""
        self.stopped = True
        waiters, self._waiting = self._waiting, []
        if self.running is not None:
            waiters += self.running.waiters
            self.running.waiters = []
        _wake(waiters)

    def close(self) -> None:
        """Give back what the syncing needs; no round may be running."""
        self._syncer.close()

    def _start(self) -> None:
        self._asked = False
        if self.stopped:
            return
        failpoint("journal.commit.before_sync")
        this = self._gather()
        this.waiters, self._waiting = self._waiting, []
        this.began = time.monotonic()
        self.running = this
        if not this.descriptors:
            self._part_done(None)
            return
        if this.names is not None:
            this.parts += 1
            this.names(self._part_done)
        try:
            self._syncer.start(this.descriptors, self._part_done)
        except OSError as refused:
            # Nothing was begun, so no sync has failed: the other way may be taken, for good.
            log.warning("journal syncs go through a thread from now on: %s", refused)
            self._syncer.close()
            self._syncer = ThreadSyncer(self._disk.sync)
            self._syncer.start(this.descriptors, self._part_done)

    def _part_done(self, error: OSError | None) -> None:
        this = self.running
        if this is None:
            return
        this.error = this.error or error
        this.parts -= 1
        if this.parts:
            return
        failpoint("journal.commit.after_sync")  # and before anybody is told
        self.running = None
        waiters, this.waiters = this.waiters, []
        self._ended(this)
        if self._asked and not self.stopped:
            self._start()
        _wake(waiters)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
