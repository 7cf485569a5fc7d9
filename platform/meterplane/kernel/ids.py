"""Time-ordered identifiers: UUIDv7 as in RFC 9562 section 5.7.

The first 48 bits are the millisecond the id was minted, so the UTC day of an event is a function of
its id alone: however often and however late it arrives, it belongs to one partition.
"""

import hashlib
import os
from datetime import date
from uuid import UUID

from meterplane.kernel import clock


def uuid7(at_ms: int | None = None) -> UUID:
    """A new UUIDv7 minted now, or at `at_ms` milliseconds since the epoch."""
    return _composed(clock.now_ms() if at_ms is None else at_ms, os.urandom(10))


def uuid7_of(at_ms: int, origin: bytes) -> UUID:
    """The UUIDv7 of an instant and of what it stands for: always the same one."""
    return _composed(at_ms, hashlib.sha256(origin).digest()[:10])


def _composed(instant_ms: int, random_bytes: bytes) -> UUID:
    random_bits = int.from_bytes(random_bytes, "big")
    rand_a = random_bits >> 68  # 12 bits
    rand_b = random_bits & ((1 << 62) - 1)
    return UUID(int=instant_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def minted_at_ms(identifier: UUID) -> int:
    """Milliseconds since the epoch at which a UUIDv7 was minted."""
    if identifier.version != 7:
        raise ValueError(f"{identifier} is not a UUIDv7")
    return identifier.int >> 80


def minted_on(identifier: UUID) -> date:
    """The UTC day a UUIDv7 was minted on."""
    return clock.from_ms(minted_at_ms(identifier)).date()
