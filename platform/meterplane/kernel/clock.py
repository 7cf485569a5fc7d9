"""The only source of now. All instants are timezone-aware UTC; tests replace the clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_frozen_ns: int | None = None


def now_ns() -> int:
    """Nanoseconds since the Unix epoch."""
    return time.time_ns() if _frozen_ns is None else _frozen_ns


def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return now_ns() // 1_000_000


def now() -> datetime:
    """The present instant, aware, UTC."""
    ns = now_ns()  # read once: of two readings either side of a second, one is a second behind
    return from_ms(ns // 1_000_000).replace(microsecond=ns // 1000 % 1_000_000)


def from_ms(instant_ms: int) -> datetime:
    """The aware UTC instant `instant_ms` milliseconds after the epoch, exactly."""
    seconds, milliseconds = divmod(instant_ms, 1000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=milliseconds * 1000)


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch of an aware instant; sub-millisecond parts are cut."""
    if instant.tzinfo is None:
        raise ValueError("a naive datetime has no instant; attach UTC first")
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Hold the clock at `at` inside the block (this process only). For tests and seeds."""
    global _frozen_ns
    before = _frozen_ns
    _frozen_ns = to_ms(at) * 1_000_000
    try:
        yield
    finally:
        _frozen_ns = before
