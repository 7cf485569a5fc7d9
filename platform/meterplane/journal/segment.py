"""A segment: one file of the journal, `<uuid7>.open` while written, then `<uuid7>.sealed`.

Header: `MPJ1 | segment id (16) | name length u16 | gateway name (UTF-8) | crc32c u32`; frames.
An open segment is allocated at its greatest length and so ends in zeros, which are no frames; a
sealed one is cut to exactly its frames. A spare is an open segment nobody wrote into: zeros only.
Its name is what it keeps, so that it can be used without touching the directory.

Guarantees: the ids of one directory rise in writing order even when the wall clock steps back, so
sorting file names is reading order; a sealed segment never changes. Does not know which frames make
sense together (`recovery` does).
"""

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from meterplane.contracts import usage
from meterplane.journal import framing
from meterplane.journal.disk import Disk
from meterplane.kernel import clock
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.ids import minted_at_ms, uuid7
from meterplane.kernel.invariant import ensure
from meterplane.kernel.limits import FRAME_BYTES_MAX, SEGMENT_BYTES_MAX

MAGIC = b"MPJ1"
OPEN_SUFFIX = ".open"
SEALED_SUFFIX = ".sealed"
_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.(open|sealed)")
GATEWAY_NAME_BYTES_MAX = 255
# A frame is appended to a segment that is not full yet, so the last one may reach over the edge.
SEGMENT_FILE_BYTES_MAX = SEGMENT_BYTES_MAX + FRAME_BYTES_MAX + framing.PREFIX_BYTES

_FIXED = struct.Struct("<4s16sH")


@dataclass(frozen=True, slots=True)
class Header:
    """Who wrote a segment. `length` is where its first frame starts."""

    segment_id: UUID
    gateway: str
    length: int


@dataclass(frozen=True, slots=True)
class SegmentPath:
    """One segment file as its name tells it."""

    segment_id: UUID
    path: Path
    sealed: bool


def encode_header(segment_id: UUID, gateway: str) -> bytes:
    """The first bytes of a segment."""
    name = gateway.encode()
    ensure(0 < len(name) <= GATEWAY_NAME_BYTES_MAX, f"a gateway name of {len(name)} bytes")
    head = _FIXED.pack(MAGIC, segment_id.bytes, len(name)) + name
    return head + framing.checksum(head).to_bytes(4, "little")


def decode_header(data: bytes) -> Header | None:
    """The header at the start of `data`, or None when it is cut, altered or of another format."""
    if len(data) < _FIXED.size:
        return None
    magic, identifier, name_bytes = _FIXED.unpack_from(data)
    end = _FIXED.size + name_bytes
    if magic != MAGIC or not 0 < name_bytes <= GATEWAY_NAME_BYTES_MAX or len(data) < end + 4:
        return None
    if framing.checksum(data[:end]) != int.from_bytes(data[end : end + 4], "little"):
        return None
    name = data[_FIXED.size : end].decode(errors="replace")
    return Header(UUID(bytes=identifier), name, end + 4)


def is_torn_header(data: bytes) -> bool:
    """True for a file whose writer was stopped before the header was whole: it holds no frame."""
    written = data.rstrip(b"\0")
    if not written:
        return True
    if not (MAGIC.startswith(written) or written.startswith(MAGIC)):
        return False
    if decode_header(data) is not None:
        return False
    if len(written) < _FIXED.size:
        return True
    name_bytes: int = _FIXED.unpack_from(written)[2]
    return name_bytes <= GATEWAY_NAME_BYTES_MAX and len(written) < _FIXED.size + name_bytes + 4


def encode_segment(segment_id: UUID, gateway: str, frames: Iterable[usage.Frame]) -> bytes:
    """A whole segment as it would stand on disk: for seeds and tests, which ship without a file."""
    return encode_header(segment_id, gateway) + b"".join(
        framing.encode(usage.encode(frame)) for frame in frames
    )


def next_segment_id(last: UUID | None) -> UUID:
    """A UUIDv7 above `last`, also when the clock stepped back or stands within one millisecond."""
    if last is None:
        return uuid7()
    return uuid7(max(clock.now_ms(), minted_at_ms(last) + 1))


def list_segments(
    directory: Path, *, spares: bool = False, at_most: int | None = None
) -> Sequence[SegmentPath]:
    """The segments of one journal directory in the order they were written; spares if asked for.

    After a week without PostgreSQL there are a million: `at_most` is how many are wanted.
    """
    found: list[SegmentPath] = []
    for name in sorted(_names(directory)):
        if at_most is not None and len(found) >= at_most:
            break
        path = directory / name
        sealed = name.endswith(SEALED_SUFFIX)
        if sealed or spares or not _is_spare(path):
            found.append(SegmentPath(_id_in(name), path, sealed))
    return found


def outermost(directory: Path) -> tuple[UUID, UUID] | None:
    """The ids of the first and the last segment that are no spares, if there are any."""
    names = [
        name
        for name in _names(directory)
        if name.endswith(SEALED_SUFFIX) or not _is_spare(directory / name)
    ]
    return (_id_in(min(names)), _id_in(max(names))) if names else None


def _names(directory: Path) -> list[str]:
    """The files of ours, in any order. Sorted, they are in the order of their ids."""
    return [name for name in os.listdir(directory) if _NAME.fullmatch(name)]


def _id_in(name: str) -> UUID:
    return UUID(name.partition(".")[0])


def _is_spare(path: Path) -> bool:
    # Its first bytes are written before any frame, and nothing writes zeros there. One that is
    # being made has no bytes yet.
    try:
        with path.open("rb", buffering=0) as file:
            return not file.read(len(MAGIC)).strip(b"\0")
    except FileNotFoundError:
        return False  # sealed or removed since the directory was read


class SegmentFile:
    """One open segment: append, sync, seal. Raises OSError; the owner must then let go of it."""

    def __init__(
        self,
        directory: Path,
        segment_id: UUID,
        gateway: str,
        disk: Disk,
        *,
        allocated_bytes: int = 0,
    ) -> None:
        """Create `<directory>/<segment_id>.open`, empty or allocated. It holds nothing yet."""
        self.segment_id = segment_id
        self.path = directory / f"{segment_id}{OPEN_SUFFIX}"
        self.length = 0
        self.closed = False
        self._disk = disk
        self._write_all = disk.write_all
        self._header = encode_header(segment_id, gateway)
        self._descriptor = disk.create(self.path)
        failpoint("journal.spare.after_create")
        try:
            if allocated_bytes:
                disk.allocate(self._descriptor, allocated_bytes)
        except OSError:
            self.abandon()
            raise

    @property
    def descriptor(self) -> int:
        """The open file."""
        return self._descriptor

    @property
    def full(self) -> bool:
        """True once the next frame belongs into another segment."""
        return self.length >= SEGMENT_BYTES_MAX

    def begin(self) -> None:
        """Write the header: from now on this is a segment and no spare."""
        self._write_all(self._descriptor, self._header)
        self.length = len(self._header)

    def append(self, payload: bytes) -> None:
        """Write one frame to the page cache."""
        frame = framing.encode(payload)
        failpoint("journal.append.before_write")
        self._write_all(self._descriptor, frame)
        failpoint("journal.append.after_write")
        self.length += len(frame)

    def sync_length(self) -> None:
        """Make the file's allocation and length durable, with all its bytes."""
        self._disk.sync_length(self._descriptor)

    def truncate(self) -> None:
        """Cut what was allocated and not written."""
        self._disk.truncate(self._descriptor, self.length)

    def seal(self) -> None:
        """Rename to `.sealed` and close. Cut and sync first; sync the directory afterwards."""
        self._disk.rename(self.path, self.path.with_suffix(SEALED_SUFFIX))
        self.abandon()

    def discard(self) -> None:
        """Remove a spare."""
        self.abandon()
        self._disk.remove(self.path)

    def abandon(self) -> None:
        """Close without a promise: as it stands, the file is recovery's."""
        if not self.closed:
            self.closed = True
            self._disk.close(self._descriptor)


def allocation_bytes() -> int:
    """The greatest length a segment can reach: what one is allocated at."""
    return SEGMENT_BYTES_MAX + FRAME_BYTES_MAX + framing.PREFIX_BYTES
