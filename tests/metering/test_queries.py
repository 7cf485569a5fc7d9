"""Sums from the roll-ups, exact at any instant: compared with counting by hand."""

import random
from collections import defaultdict
from datetime import timedelta
from typing import get_args

import pytest

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import minted_at_ms, uuid7
from meterplane.metering import queries
from meterplane.metering.ingest import ingest_segment
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests.metering.segments import message, random_settles, settle

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_weighted_split_is_visible_by_model_and_deployment(organisation):
    arms = [("tiny-lm", "default")] * 3 + [("tiny-lm", "canary"), ("identity", "default")]
    frames = [settle(organisation, model=model, deployment=arm) for model, arm in arms]
    frames.append(settle(organisation, model="identity"))
    ingest_segment(message(frames))
    end = clock.now() + timedelta(hours=1)
    with tenant_scope(organisation.id):
        slices = queries.usage_by("deployment", end - timedelta(days=1), end)
        tiers = queries.usage_by("service_tier", end - timedelta(days=1), end)
    assert [(each.split, each.events) for each in slices] == [
        ("tiny-lm @ default", 3),
        ("identity", 1),
        ("identity @ default", 1),
        ("tiny-lm @ canary", 1),
    ]
    assert [(each.split, each.events) for each in tiers] == [("standard", 6)]


def by_hand(frames, start, end):
    sums: defaultdict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for frame in frames:
        if start <= clock.from_ms(minted_at_ms(frame.request_id)) < end:
            row = sums[(frame.model, frame.service_tier, frame.price_version_id)]
            for place, value in enumerate(
                (frame.requests, frame.tokens_in, frame.tokens_out, 1, frame.cost_nano)
            ):
                row[place] += value
    return {key: tuple(row) for key, row in sums.items()}


def test_a_period_between_any_two_instants_is_exact(organisation):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = random_settles(organisation, chance, 400)
    ingest_segment(message(frames))
    now = clock.now()
    with tenant_scope(organisation.id):
        for _ in range(120):
            span = chance.choice([1, 60, 3_600, 86_400, 3 * 86_400]) * 1000
            end = now - timedelta(milliseconds=chance.randrange(3 * 86_400_000))
            start = end - timedelta(milliseconds=chance.randrange(span) + 1)
            if chance.random() < 0.3:
                start = start.replace(minute=0, second=0, microsecond=0)
            found = {
                (a.model, a.service_tier, a.price_version_id): (
                    a.requests, a.tokens_in, a.tokens_out, a.events, a.cost_nano,
                )
                for a in queries.usage_between(start, end)
            }  # fmt: skip
            assert found == by_hand(frames, start, end), (seed, start, end)


def test_two_halves_of_a_period_add_up_to_it(organisation):
    frames = random_settles(organisation, random.Random(3), 200)
    ingest_segment(message(frames))
    end = clock.now() + timedelta(seconds=1)
    start = end - timedelta(days=4)
    with tenant_scope(organisation.id):
        whole = sum(a.cost_nano for a in queries.usage_between(start, end))
        for cut in (timedelta(hours=7), timedelta(days=1, microseconds=1000)):
            parts = queries.usage_between(start, start + cut)
            parts += queries.usage_between(start + cut, end)
            assert sum(a.cost_nano for a in parts) == whole == sum(f.cost_nano for f in frames)
        assert queries.usage_between(end, start) == []


def test_splits_series_and_totals_tell_the_same_story(organisation):
    frames = random_settles(organisation, random.Random(4), 200)
    ingest_segment(message(frames))
    end = clock.now() + timedelta(hours=1)
    start = end - timedelta(days=5)
    with tenant_scope(organisation.id):
        (totals,) = queries.totals(start, end)
        assert totals.events == 200
        assert totals.events_ok == sum(frame.status == "ok" for frame in frames)
        for split in get_args(queries.Split):
            slices = queries.usage_by(split, start, end)
            assert sum(each.cost_nano for each in slices) == totals.cost_nano
            for series in (queries.usage_by_hour, queries.usage_by_day):
                buckets = series(start, end, split)
                assert sum(bucket.tokens_out for bucket in buckets) == totals.tokens_out
                assert [b.at for b in buckets] == sorted(b.at for b in buckets)
        with pytest.raises(CallerError, match="at most"):
            queries.usage_by_day(start - timedelta(days=3000), end)


def test_requests_are_listed_newest_first_and_paged_by_id(organisation, onboard):
    frames = sorted(random_settles(organisation, random.Random(5), 25), key=lambda f: f.request_id)
    globex = onboard("globex")
    theirs = settle(globex)
    ingest_segment(message([*frames, theirs]))
    with tenant_scope(organisation.id):
        pages, before = [], None
        while page := queries.recent_requests(10, before):
            pages += [row.request_id for row in page]
            before = page[-1].request_id
        assert pages == [frame.request_id for frame in reversed(frames)]
        found = queries.request_by_id(frames[0].request_id)
        assert found is not None
        assert found.cost_nano == frames[0].cost_nano
        assert queries.request_by_id(theirs.request_id) is None
        assert queries.request_by_id(uuid7()) is None
        first = queries.first_usage_at()
        assert first == clock.from_ms(minted_at_ms(frames[0].request_id))
        assert set(queries.keys_last_used()) == {organisation.key_id}
        assert len(queries.recent_requests(5, status="ok")) == 5


def test_usage_needs_a_door_and_the_systems_shows_everybodys(onboard):
    tenants = [onboard("acme"), onboard("globex")]
    ingest_segment(message([settle(tenant) for tenant in tenants]))
    start, end = clock.now() - timedelta(1), clock.now() + timedelta(1)
    with pytest.raises(TenantScopeMissing):
        queries.usage_between(start, end)
    with system_scope("test"):
        assert queries.totals(start, end)[0].events == 2
    for tenant in tenants:
        with tenant_scope(tenant.id):
            assert queries.totals(start, end)[0].events == 1
