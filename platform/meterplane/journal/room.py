"""Room for usage: nothing is admitted while the journal's disk is too full for what is under way.

The problem: while PostgreSQL or the broker is away, segments pile up, for a week if need be. A
disk that fills up to its last byte takes no SETTLE of what is under way, nor anybody else's data.
Choice: the disk is the bound. Requests are admitted as long as `free_bytes_min` are free on it,
whatever the backlog is; an absolute bound (`backlog_bytes_max`) is there for whoever shares the
disk, and off unless asked for. What is under way ends in the room that is left.

Guarantees: the journal is held at most a look after its disk came below the bound, and lets in
again a look after there is an eighth more. Nothing of it is done on the event loop.
"""

import asyncio
import logging
import time
from pathlib import Path

from meterplane.journal.backlog import Backlog, free_bytes, measure
from meterplane.journal.succession import Journal

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # one statvfs
# Files are counted more seldom, and no more than a fiftieth of the time.
COUNT_EVERY_S = 5.0
COUNT_SHARE = 50
BREATH_S = 0.001


class RoomWatch:
    """Holds one worker's journal while its disk is too full."""

    def __init__(
        self, root: Path, journal: Journal, free_bytes_min: int, backlog_bytes_max: int = 0
    ) -> None:
        self._root = root
        self._journal = journal
        self._free_bytes_min = free_bytes_min
        self._backlog_bytes_max = backlog_bytes_max
        self._count_at = 0.0
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except OSError as trouble:  # the writer will say what is wrong with its disk
                log.warning("the journal's backlog cannot be measured: %s", trouble)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Once: measure what is due, and hold the journal or let it in. Raises OSError."""
        found = self._journal.backlog
        if found is None or time.monotonic() >= self._count_at:
            began = time.monotonic()
            found = await asyncio.to_thread(measure, self._root, BREATH_S)
            took_s = time.monotonic() - began
            self._count_at = time.monotonic() + max(COUNT_EVERY_S, COUNT_SHARE * took_s)
        else:
            free = await asyncio.to_thread(free_bytes, self._root)
            found = Backlog(found.size_bytes, found.segments, found.oldest_at_ms, free)
        self._journal.backlog = found
        self._journal.hold(self._too_full(found))

    def _too_full(self, found: Backlog) -> str:
        free_bytes_min, most = self._free_bytes_min, self._backlog_bytes_max
        if self._journal.held:  # else it would change its mind with every segment that is taken in
            free_bytes_min += free_bytes_min // 8
            most -= most // 8
        if found.free_bytes < free_bytes_min:
            return f"the journal's disk has only {found.free_bytes // 1024**2} MB left"
        if most and found.size_bytes > most:
            return f"{found.size_bytes // 1024**2} MB of usage wait to be taken in"
        return ""
