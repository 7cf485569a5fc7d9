"""What an epoch spent: the sum of its events, whatever the order and the number of copies."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import UsageEvent, UsageSpend
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)


def spent(tenant):
    with tenant_scope(tenant.id):
        return {
            (row.epoch, row.day.isoformat(), row.model): row.cost_nano
            for row in UsageSpend.objects.all()
        }


def at_ms(*parts: int) -> int:
    return clock.to_ms(datetime(*parts, tzinfo=UTC))


def test_a_segment_that_comes_three_times_is_spent_once(organisation):
    today = clock.now().date().isoformat()
    events = [settle(organisation, epoch="one", cost_nano=n) for n in (1, 20, 300)]
    for _ in range(2):
        ingest_segment(message(events, None))  # another segment each time, with the same requests
    again = message(events)
    ingest_segment(again)
    ingest_segment(again)
    assert spent(organisation) == {("one", today, "tiny-lm"): 321}


def test_a_request_is_spent_on_the_day_it_was_admitted_whenever_its_id_was_minted(organisation):
    """A batch's line is named when the batch begins and may be admitted in another month."""
    minted, admitted = at_ms(2026, 10, 31, 23, 59, 59), at_ms(2026, 11, 1)
    event = settle(organisation, at_ms=minted, epoch="one", cost_nano=7, admitted_at_ms=admitted)
    ingest_segment(message([event]))
    assert spent(organisation) == {("one", "2026-11-01", "tiny-lm"): 7}
    with tenant_scope(organisation.id):
        assert clock.to_ms(UsageEvent.objects.get().admitted_at) == admitted


def test_a_request_is_spent_on_the_model_that_was_asked_for(organisation):
    at = at_ms(2026, 11, 2)
    asked = settle(organisation, at_ms=at, epoch="one", cost_nano=7, requested_model="large")
    ingest_segment(message([asked]))
    assert spent(organisation) == {("one", "2026-11-02", "large"): 7}


def test_what_was_admitted_in_no_known_epoch_is_nobodys(organisation):
    ingest_segment(message([settle(organisation)]))
    assert spent(organisation) == {}


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_the_events_in_any_order(organisation, seed):
    chance = random.Random(seed)
    now_ms = clock.now_ms()
    events = [
        settle(
            organisation,
            at_ms=now_ms - chance.randrange(3 * 86_400_000),
            epoch=chance.choice(["one", "two"]),
            model=chance.choice(["tiny-lm", "identity"]),
            cost_nano=chance.randrange(50_000),
        )
        for _ in range(200)
    ]
    doubled = events + chance.sample(events, 50)
    chance.shuffle(doubled)
    for start in range(0, len(doubled), 25):
        ingest_segment(message(doubled[start : start + 25]))
    wanted: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        day = clock.from_ms(event.admitted_at_ms).date().isoformat()
        wanted[event.epoch, day, event.model] += event.cost_nano
    assert spent(organisation) == wanted
