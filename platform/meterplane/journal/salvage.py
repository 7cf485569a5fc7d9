"""Everything readable of bytes that were damaged: what is behind damage is read on.

The problem: a length is what leads from one frame to the next, so that damage to one frame hides
all behind it. Choice: behind damage every offset is tried for a whole frame, which is one whose
length can be, whose CRC32C over length and payload fits, and whose payload is a frame of this
contract: by chance that happens once in 2^32 candidates and then not. Nor by intent: what a caller
can put into a frame are strings, and the bytes of a frame are no UTF-8 (its first key and the value
of that are `a4 .. a5`, continuation bytes that nothing leads).

Guarantees: `read_on` accounts for every byte: it is in a payload or in one damaged stretch. It ends
for any bytes. Pure. Does not know what damage means: who reads a
segment does (`reader`).
"""

import re
from dataclasses import dataclass

import msgspec

from meterplane.contracts import usage
from meterplane.journal import framing
from meterplane.journal.framing import DamageKind, Payload

# What can be the length of a frame: 1 to 65,536, little-endian. Tried in C, for a megabyte's sake.
_LENGTH = re.compile(rb"(?s)(?=[^\0].\0\0|\0[^\0]\0\0|\0\0\x01\0)")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes that are no frame: from `offset`, `length` of them, and what was wrong with the first.

    `torn`: the bytes end inside a frame (a write that was cut). `length`: no frame is that long.
    `checksum`: the frame is complete and altered. `header`: the segment's own header is unreadable.
    """

    offset: int
    length: int
    kind: DamageKind

    @property
    def end(self) -> int:
        return self.offset + self.length

    def __str__(self) -> str:
        return f"{self.length} bytes damaged at byte {self.offset} ({self.kind})"


def read_on(data: bytes, start: int) -> tuple[list[Payload], list[Stretch]]:
    """Every whole frame from `start` on, in order, and the stretches between them that are none."""
    payloads: list[Payload] = []
    stretches: list[Stretch] = []
    offset = start
    while True:
        found, damage = framing.split(data, offset)
        payloads += found
        if damage is None:
            return payloads, stretches
        offset = next_frame(data, damage.offset + 1)
        stretches.append(Stretch(damage.offset, offset - damage.offset, damage.kind))


def next_frame(data: bytes, start: int) -> int:
    """Where the next whole frame of this contract begins; the end of the bytes if there is none."""
    written = len(data.rstrip(b"\0"))  # no frame begins in the zeros of an allocation
    for candidate in _LENGTH.finditer(data, start, written):
        offset = candidate.start()
        body = framing.whole_frame_at(data, offset)
        if body is not None and _is_known(body):
            return offset
    return len(data)


def _is_known(body: bytes) -> bool:
    try:
        usage.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True
