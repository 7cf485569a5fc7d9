"""Time-ordered identifiers: UUIDv7 as in RFC 9562 section 5.7.

The first 48 bits are the millisecond the id was minted, so the UTC day of an event is a function of
its id alone: however often and however late it arrives, it belongs to one partition.
"""

import os
from collections import deque
from datetime import date
from uuid import UUID

from meterplane.kernel import clock

RANDOM_BYTES = 10
_IDS_PER_READ = 256  # one read of the system's randomness for so many ids; a read costs 1 us
_waiting: deque[bytes] = deque()
# Two processes must not mint from the same bytes.
os.register_at_fork(after_in_child=_waiting.clear)


def uuid7(at_ms: int | None = None) -> UUID:
    """A new UUIDv7 minted now, or at `at_ms` milliseconds since the epoch."""
    instant_ms = clock.now_ms() if at_ms is None else at_ms
    try:
        random_bits = int.from_bytes(_waiting.popleft(), "big")
    except IndexError:
        fresh = os.urandom(RANDOM_BYTES * _IDS_PER_READ)
        _waiting.extend(
            fresh[start : start + RANDOM_BYTES] for start in range(0, len(fresh), RANDOM_BYTES)
        )
        random_bits = int.from_bytes(os.urandom(RANDOM_BYTES), "big")
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
