"""One directory of a worker's journal: its present writer, and the requests that began there.

Knows of each request what a writer to come has to write again, until its SETTLE is durable. Decides
nothing (`succession` does).
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from meterplane.contracts.usage import Admit, Checkpoint, Settle
from meterplane.journal.writer import JournalWriter


class Open(msgspec.Struct, gc=False):
    """A request without a durable SETTLE. `written_by`: the number of the writer that has it."""

    admit: Admit | None
    checkpoint: Checkpoint | None = None
    settle: Settle | None = None
    written_by: int = 0  # nobody


@dataclass(slots=True)
class Life:
    """One directory: who writes into it, and the requests that began there."""

    writer: JournalWriter
    writers: int = 1  # so many have followed one another here
    open: dict[UUID, Open] = field(default_factory=dict)
    settled: deque[tuple[int, UUID]] = field(default_factory=deque)  # behind so many frames
    lock: int | None = None  # held for the writer to come
    over: bool = False  # no request begins here any more
    given_up: bool = False
    refusals: int = 0  # to go on here
    resumed: asyncio.Event = field(default_factory=asyncio.Event)  # another one for each failure

    @property
    def broken(self) -> bool:
        return self.writer.failed and not self.given_up

    @property
    def done(self) -> bool:
        """Whether nothing is under way that can end here."""
        return not self.open and not self.given_up and (self.lock is not None or not self.broken)

    def sweep(self) -> None:
        """Forget what is durable."""
        durable, settled = self.writer.frames_durable, self.settled
        while settled and settled[0][0] <= durable:
            request_id = settled.popleft()[1]
            entry = self.open.get(request_id)
            if entry is not None and entry.written_by:  # not begun again meanwhile
                del self.open[request_id]

    def write_settle(self, entry: Open) -> None:
        """Append the SETTLE of a request, if it has one. Raises JournalUnavailable."""
        if entry.settle is not None:
            self.writer.append(entry.settle)
            entry.written_by = self.writers
            self.settled.append((self.writer.frames_appended, entry.settle.request_id))
