"""The clock: one reading is one instant."""

from datetime import UTC, datetime
from itertools import count

from meterplane.kernel import clock


def test_an_instant_is_of_one_reading(monkeypatch):
    """Two readings either side of a second made an instant a second in the past."""
    last_of_a_second = 1_796_000_000_999_999_999
    readings = count(last_of_a_second)
    monkeypatch.setattr(clock, "now_ns", lambda: next(readings))
    second = datetime.fromtimestamp(1_796_000_000, tz=UTC)
    assert clock.now() == second.replace(microsecond=999_999)
    assert clock.now() == datetime.fromtimestamp(1_796_000_001, tz=UTC)
