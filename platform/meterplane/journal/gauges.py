"""What a writer tells of itself, for whoever operates it. Read when asked: no commit pays."""

import time
from collections import deque

from meterplane.journal.rounds import Rounds
from meterplane.journal.segment import SegmentFile


class Gauges:
    """The part of `JournalWriter` that only reads."""

    _rounds: Rounds
    _segment: SegmentFile | None
    _retired: list[SegmentFile]
    _sealing: deque[tuple[SegmentFile, int]]
    _retired_bytes: int
    _appended: int
    _durable: int
    _unsynced_since: float

    @property
    def frames_appended(self) -> int:
        """Frames handed to the kernel."""
        return self._appended

    @property
    def frames_durable(self) -> int:
        """Frames that survive a power cut."""
        return self._durable

    @property
    def bytes_appended(self) -> int:
        """Bytes written, headers of segments included."""
        return self._retired_bytes + (self._segment.length if self._segment is not None else 0)

    @property
    def unsynced_s(self) -> float:
        """Age of the oldest frame that would not survive a power cut; 0 when all would."""
        waits = self._durable < self._appended
        return time.monotonic() - self._unsynced_since if waits else 0.0

    @property
    def _to_seal(self) -> list[SegmentFile]:
        running = self._rounds.running
        retired = [*self._retired, *(running.retired if running else ())]
        return retired + [segment for segment, _ in self._sealing]

    @property
    def segments_to_seal(self) -> int:
        """Segments that take no more frames and cannot be shipped yet."""
        return len(self._to_seal)

    @property
    def unsealed_bytes(self) -> int:
        """Bytes written that cannot be shipped yet."""
        present = self._segment.length if self._segment is not None else 0
        return present + sum(segment.length for segment in self._to_seal)
