"""The phases of a request fill its time, whatever was measured of it."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.metering.queries import RequestRow
from meterplane.metering.timeline import moments, phases

AT = datetime(2026, 11, 3, 12, tzinfo=UTC)
MEASURE = st.integers(0, 10**7)


def request(**measured: int) -> RequestRow:
    """A request of which nothing is known but its measures."""
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(RequestRow)), 0)
    instants = dict.fromkeys(("admitted_at", "settled_at", "ingested_at"), AT)
    return RequestRow(**values | instants | measured)


@given(queue_us=MEASURE, compute_us=MEASURE, first_byte_ms=MEASURE, total_ms=MEASURE)
def test_the_phases_follow_each_other_and_fill_the_whole(**measured):
    found = phases(request(**measured))
    assert sum(phase.duration_us for phase in found) == measured["total_ms"] * 1000
    assert all(phase.duration_us >= 0 for phase in found)
    assert [phase.start_us for phase in found] == [
        0, found[0].duration_us, found[0].duration_us + found[1].duration_us,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "durations_us"),
    [
        ({"queue_us": 840, "first_byte_ms": 5, "total_ms": 40}, (840, 4_160, 35_000)),
        ({"queue_us": 840, "first_byte_ms": 0, "total_ms": 40}, (840, 0, 39_160)),
        # Held since before admission, for longer than the rest took.
        (
            {"queue_us": 1_160, "compute_us": 1_150, "first_byte_ms": 1, "total_ms": 1},
            (0, 1_000, 0),
        ),
        ({"queue_us": 5_200, "first_byte_ms": 5, "total_ms": 40}, (5_200, 0, 34_800)),
        ({"queue_us": 0, "first_byte_ms": 0, "total_ms": 0}, (0, 0, 0)),
    ],
)
def test_a_phase_is_what_was_measured(measured, durations_us):
    assert tuple(phase.duration_us for phase in phases(request(**measured))) == durations_us


def test_what_did_not_happen_is_not_told():
    refused = request(total_ms=3)
    assert [each.name for each in moments(refused)] == [
        "Admitted", "Last byte", "Settled", "In the usage tables",
    ]  # fmt: skip
    served = request(queue_us=840, compute_us=30_000, first_byte_ms=5, total_ms=40)
    told = {each.name: each.after_us for each in moments(served)}
    assert told == {
        "Admitted": 0, "Forwarded": 840, "First byte": 5_000, "Last byte": 40_000,
        "Settled": None, "In the usage tables": None,
    }  # fmt: skip
