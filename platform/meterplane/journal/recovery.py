"""Finish what a dead writer left, so that its directory can be shipped like any other.

The problem: a killed gateway leaves a segment that ends in zeros or inside a frame, a spare it
never used, and requests that were admitted and never settled. Choice: cut the zeros and the torn
tail (nothing in it was ever acknowledged: `commit` covers whole frames only), remove the spare,
settle each orphan from its last checkpoint in a new segment, seal all.

Guarantees: afterwards every segment is sealed and exactly its frames, and every readable ADMIT of
the directory has a SETTLE. Recovering again, or after a recovery that was killed itself, settles
nothing twice: orphans are recognised by what stands on disk, not by a note of having been here.
The caller must hold the directory's lock (`directory.claim`). Does not know what has been shipped;
the shipper deletes in order, so a SETTLE never disappears before its ADMIT.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from meterplane.contracts import usage
from meterplane.journal import reader
from meterplane.journal.directory import worker_of
from meterplane.journal.disk import Disk
from meterplane.journal.segment import (
    SEALED_SUFFIX,
    SegmentFile,
    SegmentPath,
    is_torn_header,
    list_segments,
    next_segment_id,
)
from meterplane.kernel import clock
from meterplane.kernel.failpoints import failpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done. `cut_bytes` were the torn tails, without the zeros of a file's allocation."""

    segments: int
    cut_bytes: int
    settled: int


def recover(directory: Path, disk: Disk | None = None) -> Recovery:
    """Cut, settle and seal one directory whose lock the caller holds. Raises OSError."""
    disk = disk or Disk()
    cut_bytes = sum(
        _cut_tail(segment)
        for segment in list_segments(directory, spares=True)
        if not segment.sealed
    )
    failpoint("journal.recovery.after_cut")
    # The spares are gone; what still begins like one holds bytes, and is kept like any other.
    orphans = _orphans(list_segments(directory, spares=True))
    _write_settles(directory, orphans, disk)
    left = list_segments(directory, spares=True)
    failpoint("journal.recovery.before_seal")
    for segment in left:
        if not segment.sealed:
            _seal(segment, disk)
    failpoint("journal.recovery.before_directory_sync")
    disk.sync_directory(directory)
    done = Recovery(len(left), cut_bytes, len(orphans))
    log.info(
        "recovered journal %s: %s segments, %s requests settled as interrupted, %s bytes cut",
        directory.name, done.segments, done.settled, done.cut_bytes,
    )  # fmt: skip
    return done


def _cut_tail(segment: SegmentPath) -> int:
    """Leave whole frames only. Returns how many bytes that meant something were cut."""
    data = segment.path.read_bytes()
    written = len(data.rstrip(b"\0"))
    if is_torn_header(data):
        # A spare, or killed between creating the file and its first frame.
        segment.path.unlink()
        return written
    content = reader.parse_segment(data)
    if content.header is None:
        # Not a write that was cut but bytes that changed: quarantined by ingest.
        log.error("the header of %s is unreadable", segment.path)
    last = content.damaged[-1] if content.damaged else None
    if last is None or last.kind == "header" or last.end < len(data):
        return 0  # damage before whole frames stays where it is: ingest sets it aside
    os.truncate(segment.path, last.offset)
    return max(0, written - last.offset)


def _orphans(segments: Iterable[SegmentPath]) -> list[usage.Settle]:
    # Holds open requests only: a SETTLE stands behind its ADMIT and clears it.
    admitted: dict[UUID, usage.Admit] = {}
    checkpoints: dict[UUID, usage.Checkpoint] = {}
    for segment in segments:
        content = reader.read_segment(segment.path)
        for stretch in content.damaged:
            log.error("%s: %s", segment.path, stretch)
        for frame in reader.frames_of(content):
            if isinstance(frame, usage.Admit):
                admitted[frame.request_id] = frame
            elif isinstance(frame, usage.Settle):
                admitted.pop(frame.request_id, None)
                checkpoints.pop(frame.request_id, None)
            elif frame.request_id in admitted:
                checkpoints[frame.request_id] = frame
    now_ms = clock.now_ms()
    return [
        usage.settle_orphan(admit, checkpoints.get(request_id), now_ms)
        for request_id, admit in admitted.items()
    ]


def _write_settles(directory: Path, settles: Iterable[usage.Settle], disk: Disk) -> None:
    segment: SegmentFile | None = None
    for settle in settles:
        if segment is None or segment.full:
            if segment is not None:
                segment.abandon()
            segments = list_segments(directory, spares=True)
            last = segments[-1].segment_id if segments else None
            # Not allocated ahead: on a disk that is full, the few frames may still have room.
            segment = SegmentFile(directory, next_segment_id(last), worker_of(directory), disk)
            segment.begin()
        segment.append(usage.encode(settle))
        failpoint("journal.recovery.between_settles")
    if segment is not None:
        segment.abandon()


def _seal(segment: SegmentPath, disk: Disk) -> None:
    descriptor = os.open(segment.path, os.O_RDWR)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.rename(segment.path, segment.path.with_suffix(SEALED_SUFFIX))
