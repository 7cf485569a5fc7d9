"""Which zones the sums of whole UTC hours can serve, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from meterplane.metering.buckets import hours_line_up, zone_named

# On Lord Howe Island clocks go back by half an hour, from 11:00 ahead of UTC to 10:30.
BACK_AT = datetime(2026, 4, 4, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "from_h", "to_h", "lines_up"),
    [
        ("UTC", -1000, 1000, True),
        ("Europe/Berlin", -1000, 1000, True),
        ("Asia/Kolkata", -5, 5, False),
        ("Australia/Lord_Howe", -50, -1, True),
        ("Australia/Lord_Howe", -5, 5, False),
        ("Australia/Lord_Howe", -50, 5, False),
        ("Australia/Lord_Howe", 1, 50, False),
    ],
)
def test_a_zone_lines_up_while_its_offset_is_whole_hours(zone, from_h, to_h, lines_up):
    start, end = (BACK_AT + timedelta(hours=hours) for hours in (from_h, to_h))
    assert hours_line_up(zone_named(zone), start, end) is lines_up
