"""Where one request's time went, from admission to its last byte.

Three phases that fill the time exactly, in whole microseconds: `queue` (held at the gateway until
it was forwarded), `first_token` (from there to the first byte of the answer), `rest` (to the last
one). The instants are what was measured; a phase is cut where two measures overlap.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from meterplane.metering.queries import RequestRow

Name = Literal["queue", "first_token", "rest"]

_US_PER_MS = 1000


@dataclass(frozen=True, slots=True)
class Phase:
    """`start_us` is counted from admission."""

    name: Name
    start_us: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a request, and when."""

    name: str
    at: datetime
    after_us: int | None = None


def phases(row: RequestRow) -> tuple[Phase, Phase, Phase]:
    """Their durations add up to `total_ms`. Without a first byte (an error, a crash, an answer
    nobody waited for) the time after the queue is `rest`."""
    total_us = row.total_ms * _US_PER_MS
    queue_us = _queue_us(row)
    first_us = min(max(row.first_byte_ms * _US_PER_MS, queue_us), total_us)
    return (
        Phase("queue", 0, queue_us),
        Phase("first_token", queue_us, first_us - queue_us),
        Phase("rest", first_us, total_us - first_us),
    )


def moments(row: RequestRow) -> list[Moment]:
    """What happened, in order; what did not, or was not kept, is left out."""
    admitted_at = row.admitted_at or row.event_at
    found = [Moment("Admitted", admitted_at, 0)]
    if row.compute_us:  # nothing was forwarded that the server did not work on
        found.append(_after("Forwarded", admitted_at, _queue_us(row)))
    if row.first_byte_ms:
        found.append(_after("First byte", admitted_at, row.first_byte_ms * _US_PER_MS))
    found.append(_after("Last byte", admitted_at, row.total_ms * _US_PER_MS))
    found.append(Moment("Settled", row.settled_at))
    found.append(Moment("In the usage tables", row.ingested_at))
    return found


def _queue_us(row: RequestRow) -> int:
    """What was spent in the queue since admission. `queue_us` is counted from the request's last
    byte, which is before it was admitted: what the server took is not taken from it."""
    return min(row.queue_us, max(0, row.total_ms * _US_PER_MS - row.compute_us))


def _after(label: str, admitted_at: datetime, after_us: int) -> Moment:
    return Moment(label, admitted_at + timedelta(microseconds=after_us), after_us)
