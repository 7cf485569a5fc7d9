"""Sums from the roll-ups, exact at any instant: compared with counting by hand."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from msgspec.structs import replace

from meterplane.contracts.usage import SERVED, TAGS_MAX
from meterplane.kernel import clock
from meterplane.kernel.ids import minted_at_ms, uuid7
from meterplane.metering import queries
from meterplane.metering.ingest import ingest_segment
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests.metering.segments import message, random_settles, settle
from tests.metering.usage_oracle import value
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def by_hand(frames, start, end, served=()):
    sums: defaultdict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for frame in frames:
        if start <= clock.from_ms(minted_at_ms(frame.request_id)) < end:
            how = tuple(getattr(frame, name) for name in served)
            row = sums[(frame.model, frame.service_tier, frame.price_version_id, *how)]
            for place, value in enumerate(
                (frame.requests, frame.tokens_in, frame.tokens_out, 1, frame.cost_nano)
            ):
                row[place] += value
    return {key: tuple(row) for key, row in sums.items()}


def as_read(start, end, served):
    return {
        (a.model, a.service_tier, a.price_version_id, *a.served): (
            a.requests, a.tokens_in, a.tokens_out, a.events, a.cost_nano,
        )
        for a in queries.usage_between(start, end, served)
    }  # fmt: skip


def test_a_period_between_any_two_instants_is_exact(organisation):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = random_settles(organisation, chance, 400)
    ingest_segment(message(frames))
    now = clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with tenant_scope(organisation.id):
        for _ in range(120):
            span = chance.choice([1, 60, 3_600, 86_400, 3 * 86_400]) * 1000
            end = now - timedelta(milliseconds=chance.randrange(3 * 86_400_000))
            start = end - timedelta(milliseconds=chance.randrange(span) + 1)
            whole = chance.choice([None, None, timedelta(hours=1), timedelta(days=1)])
            if whole is not None:
                start -= (start - midnight) % whole
                end = start + max(whole, (end - start) // whole * whole)
            served = chance.sample(SERVED, chance.choice([0, 0, 1, 3]))
            found = as_read(start, end, served)
            assert found == by_hand(frames, start, end, served), (seed, start, end, served)


def tables_in(asked):
    (statement,) = [each["sql"] for each in asked if "usage_" in each["sql"]]
    tables = ("usage_month", "usage_day", "usage_hour", "usage_event")
    return {name for name in tables if f"FROM {name} " in statement}


def test_a_month_is_read_from_days_and_what_is_beside_them_from_hours(organisation):
    noon = clock.now().replace(hour=12, minute=0, second=0, microsecond=0)
    midnight = noon.replace(hour=0)
    for start, end, expected in [
        (midnight - timedelta(30), midnight, {"usage_day"}),
        (noon - timedelta(30), noon, {"usage_day", "usage_hour"}),
        (noon - timedelta(1), noon - timedelta(hours=9), {"usage_hour"}),
        (noon - timedelta(minutes=90), noon - timedelta(minutes=40), {"usage_event"}),
    ]:
        with tenant_scope(organisation.id), CaptureQueriesContext(connection) as asked:
            queries.usage_by_key_and_model(start, end)
        assert tables_in(asked) == expected


@pytest.mark.parametrize(
    "now",
    [NOON, NOON.replace(day=1, hour=0), NOON.replace(day=31, hour=23, minute=59), NOON - 16 * DAY],
)
def test_months_say_what_their_days_and_events_do(organisation, now):
    """Up to any instant, the present among them, and with requests of clocks that are ahead."""
    seed = drawn_seed()
    chance = random.Random(seed)
    month, before = now.replace(day=1, hour=0, minute=0), datetime(2025, 12, 1, tzinfo=UTC)
    with clock.frozen(now + 2 * DAY):
        frames = random_settles(organisation, chance, 400, days=80)
        for start in range(0, 400, 40):
            ingest_segment(message(frames[start : start + 40]))
    edges = [month, before, NOON.replace(day=1, month=2, hour=0), now, now - DAY, now + DAY]
    edges += [NOON.replace(day=1, month=4, hour=0), now - timedelta(hours=30), now - 9 * DAY]
    edges += [edge + timedelta(milliseconds=chance.choice([-1, 1, 3_600_000])) for edge in edges]
    with clock.frozen(now), tenant_scope(organisation.id):
        for _ in range(80):
            start, end = sorted(chance.sample(edges, 2))
            served = chance.sample(SERVED, chance.choice([0, 0, 1, 3]))
            assert as_read(start, end, served) == by_hand(frames, start, end, served), (start, end)


def test_a_bill_is_read_from_months_and_what_is_left_of_the_running_one(organisation):
    month = NOON.replace(day=1, hour=0)
    left = {"usage_month", "usage_day", "usage_hour", "usage_event"}
    with clock.frozen(NOON):
        for start, end, expected in [
            (month, NOON.replace(month=4, day=1, hour=0), {"usage_month"}),
            (month - timedelta(28), month, {"usage_month"}),
            (month - timedelta(28), NOON, left - {"usage_event"}),
            (month, NOON + timedelta(seconds=1), left),
            (month + timedelta(1), NOON, {"usage_day", "usage_hour"}),
            (month, NOON - timedelta(2), {"usage_day", "usage_hour"}),
            (month - timedelta(30), month, {"usage_month", "usage_day"}),
        ]:
            with tenant_scope(organisation.id), CaptureQueriesContext(connection) as asked:
                queries.usage_between(start, end)
            assert tables_in(asked) == expected, (start, end)


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
        first = clock.from_ms(minted_at_ms(frames[0].request_id))
        assert queries.first_month_used() == first.replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        assert set(queries.keys_last_used()) == {organisation.key_id}
        assert len(queries.recent_requests(5, filters={"status": ("ok",)})) == 5


def test_usage_needs_a_door_and_the_systems_shows_everybodys(onboard):
    tenants = [onboard("acme"), onboard("globex")]
    ingest_segment(message([settle(tenant) for tenant in tenants]))
    start, end = clock.now() - timedelta(1), clock.now() + timedelta(1)
    with pytest.raises(TenantScopeMissing):
        queries.usage_between(start, end)
    with system_scope("test"):
        assert queries.usage_between(start, end)[0].events == 2
    for tenant in tenants:
        with tenant_scope(tenant.id):
            assert queries.usage_between(start, end)[0].events == 1


def test_requests_are_found_by_any_filter_and_between_any_two_instants(organisation):
    """Each page against the events themselves: every filter, tags among them, and half-open."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = [
        replace(
            frame, tags={"team": chance.choice(["ads", "search"])} if chance.random() < 0.7 else {}
        )
        for frame in random_settles(organisation, chance, 120)
    ]
    ingest_segment(message(frames))
    instants = sorted(clock.from_ms(minted_at_ms(frame.request_id)) for frame in frames)
    known = {
        "model": ("tiny-lm", "identity"),
        "status": ("ok", "error"),
        "surface": ("openai.chat", "kserve.infer"),
        "deployment": ("tiny-lm @ canary", "tiny-lm"),
        "priority": ("high", "low"),
        "region": ("eu-west",),
        "gpu_type": ("",),
        "tag:team": ("ads", "search", ""),
        "key": (str(organisation.key_id),),
    }
    found = 0
    with tenant_scope(organisation.id):
        for _ in range(40):
            filters = {
                name: tuple(chance.sample(known[name], chance.choice([1, len(known[name])])))
                for name in chance.sample(list(known), chance.choice([0, 1, 2]))
            }
            since, until = sorted(chance.sample(instants, 2))
            expected = [
                frame.request_id
                for frame in frames
                if since <= clock.from_ms(minted_at_ms(frame.request_id)) < until
                and all(value(frame, name) in wanted for name, wanted in filters.items())
            ]
            asked = {"filters": filters, "since": since, "until": until}
            shown, before = [], None
            while page := queries.recent_requests(17, before, **asked):
                shown += page
                before = page[-1].request_id
            assert {row.request_id for row in shown} == set(expected), (seed, asked)
            assert len(shown) == len(expected)
            assert [row.event_at for row in shown] == sorted(
                (row.event_at for row in shown), reverse=True
            )
            found += len(shown)
    assert found > 100


def test_the_names_of_an_organisations_tags_are_its_own_and_bounded(organisation, onboard):
    many = {f"tag-{number:02}": "x" for number in range(TAGS_MAX)}
    frames = [settle(organisation, tags=many), settle(organisation, tags={"team": "ads"})]
    ingest_segment(message([*frames, settle(onboard("globex"), tags={"secret": "x"})]))
    with tenant_scope(organisation.id):
        assert queries.tag_names() == [*sorted(many), "team"]
    with system_scope("test"), pytest.raises(TenantScopeMissing):
        queries.tag_names()
