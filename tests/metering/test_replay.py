"""Whatever the order, the copies and the clocks: the tables are those of one clean pass."""

import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections

from meterplane.contracts.usage import SegmentMessage
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import UsageDay, UsageEvent, UsageHour, UsageQuarantine, UsageSpend
from tenants.scoping import system_scope
from tests.conftest import superuser
from tests.metering.segments import message, random_settles, settle
from tests.metering.tables import digest_of_usage

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def in_processes(orders: list[list[SegmentMessage]]) -> None:
    """Take these in, each list in a process of its own, all at once."""
    connections.close_all()
    children = []
    for order in orders:
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                for each in order:
                    ingest_segment(each)
                failed = 0
            finally:
                os._exit(failed)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(orders)


@pytest.mark.parametrize(
    ("count", "copies"), [(120, 3), pytest.param(20_000, 10, marks=pytest.mark.long)]
)
def test_replayed_segments_leave_the_tables_of_one_clean_pass(onboard, count, copies):
    seed = random.randrange(2**32)
    print(f"seed {seed}, n = {count} events, each segment {copies} times")
    chance = random.Random(seed)
    tenants = [onboard("acme"), onboard("globex")]
    frames = [frame for tenant in tenants for frame in random_settles(tenant, chance, count // 2)]
    chance.shuffle(frames)
    size = max(20, count // 40)
    segments = [message(frames[start : start + size]) for start in range(0, count, size)]
    # The same requests in other segments: a journal that was recovered twice.
    segments += [message(chance.sample(frames, size)) for _ in range(3)]
    superuser().keep("before")
    for each in segments:
        ingest_segment(each)
    clean = digest_of_usage()
    connections.close_all()
    superuser().empty()
    assert digest_of_usage() != clean
    superuser().restore("before")
    in_processes([chance.sample(segments * copies, len(segments) * copies) for _ in range(2)])
    assert digest_of_usage() == clean


def utc(*parts: int) -> int:
    return clock.to_ms(datetime(*parts, tzinfo=UTC))  # type: ignore[misc]


# What a gateway's clock says, and the day, hour and month its request belongs to.
BORDERS = {
    "the last millisecond of a month": (utc(2024, 1, 31, 23, 59, 59) + 999, "2024-01-31 23"),
    "the first of the next": (utc(2024, 2, 1), "2024-02-01 00"),
    "the last of a leap day": (utc(2024, 2, 29, 23, 59, 59) + 999, "2024-02-29 23"),
    "the first after a leap day": (utc(2024, 3, 1), "2024-03-01 00"),
    "the last of a year": (utc(2023, 12, 31, 23, 59, 59) + 999, "2023-12-31 23"),
    "where clocks in Berlin go back": (utc(2024, 10, 27, 1, 30), "2024-10-27 01"),
}


def test_an_event_is_in_the_day_and_hour_of_its_id_however_late_and_whatever_else_it_says(
    organisation,
):
    """Settled and shipped months later, by a gateway whose clock meanwhile stepped back an hour."""
    expected = {}
    for at_ms, hour in BORDERS.values():
        frame = settle(
            organisation,
            at_ms=at_ms,
            admitted_at_ms=at_ms,
            settled_at_ms=at_ms - HOUR_MS,
        )
        expected[frame.request_id] = hour
        ingest_segment(message([frame], uuid7(utc(2024, 12, 1))))
    with system_scope("test"):
        for event in UsageEvent.objects.all():
            assert f"{event.event_at:%Y-%m-%d %H}" == expected[event.request_id]
            assert f"{event.event_day}" == expected[event.request_id][:10]
        hours = sorted(f"{row.hour:%Y-%m-%d %H}" for row in UsageHour.objects.all())
        days = sorted(str(row.day) for row in UsageDay.objects.all())
    assert hours == sorted(expected.values())
    assert days == sorted({hour[:10] for hour in expected.values()})


def test_clocks_that_differ_and_step_lose_and_double_nothing(organisation):
    seed = random.randrange(2**32)
    print(f"seed {seed}, n = 200")
    chance = random.Random(seed)
    midnight = datetime(2024, 3, 1, tzinfo=UTC)  # after a leap day, the end of a month
    skews_ms = [-10 * MINUTE_MS, 0, 10 * MINUTE_MS, -HOUR_MS]
    frames = []
    with clock.frozen(midnight + timedelta(minutes=2)):
        for _ in range(200):
            # Each gateway stamps by its own clock; one stepped back while requests were running.
            at_ms = clock.now_ms() + chance.choice(skews_ms) + chance.randrange(-90_000, 90_000)
            settled_at_ms = at_ms + chance.choice([40, -HOUR_MS])
            frames.append(settle(organisation, at_ms=at_ms, settled_at_ms=settled_at_ms))
        for start in range(0, 200, 25):
            ingest_segment(message(frames[start : start + 25]))
            ingest_segment(message(frames[start : start + 25]))
    border_ms = clock.to_ms(midnight)
    february = sum(frame.request_id.int >> 80 < border_ms for frame in frames)
    with system_scope("test"):
        sums = {str(row.day): row.events for row in UsageDay.objects.all()}
        assert not UsageQuarantine.objects.exists()
        assert UsageSpend.objects.count() == 0  # no epoch was named
    assert sums == {"2024-02-29": february, "2024-03-01": 200 - february}
