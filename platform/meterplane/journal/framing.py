"""Frames of the journal: `len u32 | crc32c u32 | payload`, little-endian. Bytes in, payloads out.

Guarantees: what `split` returns was written whole. The CRC covers the length as well as the
payload, so a run of zeros (what a file system shows for a page that never reached the disk, and
what a preallocated file ends with) is never taken for a sequence of empty frames. Does not know
what a payload means, nor does any I/O.
"""

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

import google_crc32c

from meterplane.kernel.invariant import ensure
from meterplane.kernel.limits import FRAME_BYTES_MAX

_PREFIX = struct.Struct("<II")
PREFIX_BYTES = _PREFIX.size

DamageKind = Literal["torn", "length", "checksum", "header"]


@dataclass(frozen=True, slots=True)
class Damage:
    """Where the readable part ends and why.

    `torn`: the bytes end inside a frame (a write that was cut). `length`: no frame is that long.
    `checksum`: the frame is complete and altered. `header`: the segment's own header is unreadable.
    """

    offset: int
    kind: DamageKind


class Payload(NamedTuple):
    """One whole frame: where it starts in its segment, and what it carries."""

    offset: int
    body: bytes


def checksum(data: bytes) -> int:
    """CRC32C (Castagnoli), 32 bits."""
    return int(google_crc32c.value(data))


# The checksum of the length alone, from which a frame's goes on over its payload: neither a join of
# the two nor a second copy of the payload is made. Frames are about 500 bytes; 2,048 x 8 B = 16 kB.
_CHECKSUMS_OF_LENGTH = tuple(checksum(length.to_bytes(4, "little")) for length in range(2048))
_pack, _unpack, _extend = _PREFIX.pack, _PREFIX.unpack_from, google_crc32c.extend


def encode(payload: bytes) -> bytes:
    """The frame of one payload, 1 to `FRAME_BYTES_MAX` bytes."""
    length = len(payload)
    if not 0 < length <= FRAME_BYTES_MAX:
        ensure(False, f"a frame of {length} bytes")
    begun = (
        _CHECKSUMS_OF_LENGTH[length] if length < 2048 else checksum(length.to_bytes(4, "little"))
    )
    return _pack(length, _extend(begun, payload)) + payload


def whole_frame_at(data: bytes, offset: int) -> bytes | None:
    """The payload of the frame that begins there, if one does and it is whole."""
    if len(data) - offset < PREFIX_BYTES:
        return None
    length, expected = _PREFIX.unpack_from(data, offset)
    end = offset + PREFIX_BYTES + length
    if not 0 < length <= FRAME_BYTES_MAX or end > len(data):
        return None
    body = data[offset + PREFIX_BYTES : end]
    return body if checksum(data[offset : offset + 4] + body) == expected else None


def split(data: bytes, start: int = 0) -> tuple[list[Payload], Damage | None]:
    """Every whole frame from `start` on, in order, and what ended the reading if not the end."""
    payloads: list[Payload] = []
    offset, size = start, len(data)
    while offset < size:
        begin = offset + PREFIX_BYTES
        if begin > size:
            return payloads, Damage(offset, "torn")
        length, expected = _unpack(data, offset)
        if not 0 < length <= FRAME_BYTES_MAX:
            return payloads, Damage(offset, "length")
        end = begin + length
        if end > size:
            return payloads, Damage(offset, "torn")
        body = data[begin:end]
        begun = (
            _CHECKSUMS_OF_LENGTH[length] if length < 2048 else checksum(data[offset : offset + 4])
        )
        if _extend(begun, body) != expected:
            return payloads, Damage(offset, "checksum")
        payloads.append(Payload(offset, body))
        offset = end
    return payloads, None
