"""Read segments: what is whole, in order, and each stretch between that is not.

Guarantees: never raises on the content of a file; damage is a value, and what is whole behind it is
read all the same (`salvage`), also where the header itself is lost: frames need nobody's name. The
zeros that an open segment was allocated with are its end and no damage; in a sealed one, which is
cut to its frames, they are. Does not repair (`recovery`) and does not judge what damage means: at
the end of a segment nobody sealed it is a write that was cut; before it, pages that a power cut
took before anything behind them was acknowledged; in a sealed one it is a disk that lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meterplane.contracts import usage
from meterplane.journal import framing
from meterplane.journal.directory import list_directories
from meterplane.journal.salvage import Stretch, next_frame, read_on
from meterplane.journal.segment import OPEN_SUFFIX, Header, decode_header, list_segments


@dataclass(frozen=True, slots=True)
class SegmentContent:
    """What a segment holds. `damaged` is every byte that is neither header nor a whole frame's."""

    header: Header | None
    payloads: list[framing.Payload]
    damaged: list[Stretch]

    @property
    def damage(self) -> Stretch | None:
        """The first of the damage."""
        return self.damaged[0] if self.damaged else None


def parse_segment(data: bytes, *, sealed: bool = True) -> SegmentContent:
    """The content of a segment from its bytes."""
    header = decode_header(data)
    damaged: list[Stretch] = []
    start = header.length if header is not None else next_frame(data, 0)
    if header is None:
        damaged.append(Stretch(0, start, "header"))
    payloads, stretches = read_on(data, start)
    damaged += stretches
    if stretches and not sealed and not data[stretches[-1].offset :].strip(b"\0"):
        damaged.pop()
    return SegmentContent(header, payloads, damaged)


def read_segment(path: Path) -> SegmentContent:
    """The content of a segment file. Raises OSError only."""
    return parse_segment(path.read_bytes(), sealed=path.suffix != OPEN_SUFFIX)


def decode_payload(payload: framing.Payload) -> usage.Frame | None:
    """The frame in a payload, or None when this version of the contract does not know it."""
    try:
        return usage.decode(payload.body)
    except (msgspec.MsgspecError, ValueError):
        return None


def frames_of(content: SegmentContent) -> Iterator[usage.Frame]:
    """The frames this version knows, in the order they were written."""
    for payload in content.payloads:
        frame = decode_payload(payload)
        if frame is not None:
            yield frame


def frames_under(root: Path) -> Iterator[usage.Frame]:
    """Every readable frame of every journal under `root`, each journal in writing order."""
    for directory in list_directories(root):
        for segment in list_segments(directory):
            yield from frames_of(read_segment(segment.path))
