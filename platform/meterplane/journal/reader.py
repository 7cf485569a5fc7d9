"""Read segments: what is whole, in order, and where reading had to stop.

Guarantees: never raises on the content of a file; damage is a value. The zeros that an open segment
was allocated with are its end and no damage; in a sealed one, which is cut to its frames, they are.
Does not repair (`recovery`) and does not judge what damage means: at the end of a segment nobody
sealed it is a write that was cut, in a sealed one it is a disk that lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meterplane.contracts import usage
from meterplane.journal import framing
from meterplane.journal.directory import list_directories
from meterplane.journal.segment import OPEN_SUFFIX, Header, decode_header, list_segments


@dataclass(frozen=True, slots=True)
class SegmentContent:
    """What a segment holds. Without a readable header there are no payloads."""

    header: Header | None
    payloads: list[framing.Payload]
    damage: framing.Damage | None


def parse_segment(data: bytes, *, sealed: bool = True) -> SegmentContent:
    """The content of a segment from its bytes."""
    header = decode_header(data)
    if header is None:
        return SegmentContent(None, [], framing.Damage(0, "header"))
    payloads, damage = framing.split(data, header.length)
    if damage is not None and not sealed and not data[damage.offset :].strip(b"\0"):
        damage = None
    return SegmentContent(header, payloads, damage)


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
