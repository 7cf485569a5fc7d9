"""UUIDv7: an id carries the instant it was minted."""

from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from meterplane.kernel import clock, ids


def test_an_id_knows_its_day_whenever_it_arrives():
    minted = ids.uuid7(clock.to_ms(datetime(2026, 11, 30, 23, 59, 59, 999000, tzinfo=UTC)))
    assert ids.minted_on(minted) == date(2026, 11, 30)
    assert minted.version == 7
    assert minted.variant == "specified in RFC 4122"


def test_ids_of_later_milliseconds_sort_later():
    made = [ids.uuid7(instant) for instant in range(1_790_000_000_000, 1_790_000_000_200)]
    assert made == sorted(made)


def test_ids_do_not_repeat():
    assert len({ids.uuid7(1_790_000_000_000) for _ in range(10_000)}) == 10_000


def test_an_id_made_of_something_is_always_the_same_one():
    made = ids.uuid7_of(1_790_000_000_000, b"this")
    assert made == ids.uuid7_of(1_790_000_000_000, b"this")
    assert made != ids.uuid7_of(1_790_000_000_000, b"that")
    assert (made.version, ids.minted_at_ms(made)) == (7, 1_790_000_000_000)


def test_an_id_of_another_kind_has_no_instant():
    with pytest.raises(ValueError, match="not a UUIDv7"):
        ids.minted_at_ms(uuid4())


def test_a_frozen_clock_mints_ids_of_that_instant():
    at = datetime(2026, 2, 28, 12, tzinfo=UTC)
    with clock.frozen(at):
        assert clock.now() == at
        assert ids.minted_on(ids.uuid7()) == date(2026, 2, 28)


def test_a_naive_datetime_has_no_instant():
    with pytest.raises(ValueError, match="naive"):
        clock.to_ms(datetime(2026, 1, 1))  # noqa: DTZ001
