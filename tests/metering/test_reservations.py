"""What requests held and how long open answers were: counted by hand, and read by day."""

import random
from collections import Counter
from datetime import timedelta

import pytest

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import UsageEvent
from meterplane.metering.reservations import AnswersOfLength, answer_lengths, held_by_model
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests.metering.segments import message, random_settles, settle
from tests.metering.test_query_plans import days_read

pytestmark = pytest.mark.django_db(transaction=True)


def test_where_an_answer_stops_is_kept_with_its_event(organisation):
    ingest_segment(message([settle(organisation, tokens_out_stop=96)]))
    with tenant_scope(organisation.id):
        assert UsageEvent.objects.get().tokens_out_stop == 96


def test_what_is_held_is_summed_by_model_as_by_hand(organisation):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    frames = random_settles(organisation, random.Random(seed), 300)
    ingest_segment(message(frames))
    end = clock.now() + timedelta(seconds=1)
    with tenant_scope(organisation.id):
        rows = held_by_model(end - timedelta(days=4), end)
    by_hand: dict[str, list] = {}
    for frame in frames:
        if frame.status != "error":
            by_hand.setdefault(frame.model, []).append(frame)
    assert [row.model for row in rows] == sorted(by_hand)
    for row in rows:
        mine = by_hand[row.model]
        over = sorted(frame.reserved_nano - frame.cost_nano for frame in mine)
        assert row.requests == len(mine)
        assert row.reserved_nano - row.cost_nano == sum(over)
        assert row.over_hold_p50_nano == over[-(-len(over) * 50 // 100) - 1]
        assert row.over_hold_p95_nano == over[-(-len(over) * 95 // 100) - 1]


def test_an_answer_that_was_cut_or_left_is_told_from_one_that_ended(organisation):
    ends = Counter({("ok", 50, 256): 3, ("ok", 256, 256): 2, ("cancelled", 50, 256): 4})
    ends |= Counter({("error", 0, 256): 1, ("ok", 300, 0): 1, ("interrupted", 7, 96): 1})
    ingest_segment(
        message(
            [
                settle(organisation, status=status, tokens_out=tokens_out, tokens_out_stop=stop)
                for status, tokens_out, stop in ends.elements()
            ]
        )
    )
    end = clock.now() + timedelta(seconds=1)
    with system_scope("a test"):
        found = answer_lengths(end - timedelta(days=1), end)
    assert found == {
        "tiny-lm": [
            AnswersOfLength(7, 1, 0, 0),
            AnswersOfLength(50, 7, 3, 3),
            AnswersOfLength(256, 2, 2, 0),
        ]
    }


def test_another_tenants_requests_are_not_in_it_and_without_a_door_there_is_nothing(
    organisation, onboard
):
    globex = onboard("globex")
    ingest_segment(message([settle(globex, tokens_out_stop=9), settle(organisation)]))
    end = clock.now() + timedelta(seconds=1)
    start = end - timedelta(days=1)
    with tenant_scope(organisation.id):
        assert [row.requests for row in held_by_model(start, end)] == [1]
        assert answer_lengths(start, end) == {}
    with system_scope("a test"):
        assert [row.requests for row in held_by_model(start, end)] == [2]
    for ask in (held_by_model, answer_lengths):
        with pytest.raises(TenantScopeMissing):
            ask(start, end)


def test_a_week_reads_the_days_of_a_week_only(organisation):
    now = clock.now()
    at_ms = clock.to_ms(now)
    ingest_segment(
        message([settle(organisation, at_ms=at_ms - day * 86_400_000) for day in range(30)])
    )
    with system_scope("a test"):
        for ask in (held_by_model, answer_lengths):
            read = days_read(lambda ask=ask: ask(now - timedelta(days=7), now))
            assert len(read) == 8
