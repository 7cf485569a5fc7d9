"""However an answer is served, from days, hours, tags or events, it is that of the events."""

import json
import random
import re
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.usage_query import UsageQuery
from meterplane.metering.usage_table import UsageTable, run
from tenants.scoping import TenantScopeMissing, current_scope, system_scope, tenant_scope
from tests.metering.segments import message, settle
from tests.metering.usage_oracle import FIRST, count, some_query, some_usage, two_organisations

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("in_december")]

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture
def in_december():
    """After all of the events, and before they are too old to be read singly."""
    with clock.frozen(datetime(2026, 12, 1, tzinfo=UTC)):
        yield


def door(tenant_id, chance: random.Random) -> AbstractContextManager[None]:
    return tenant_scope(tenant_id) if chance.random() < 0.7 else system_scope("test")


def is_in_order(table: UsageTable) -> bool:
    order = table.query.order or ("time" if table.query.bucket else "cost")
    by_time = [((row.at or FIRST), row.groups, row.currency) for row in table.rows]
    by_name = [(row.groups, row.currency, (row.at or FIRST)) for row in table.rows]
    most = {
        "cost": [-row.cost_nano for row in table.rows],
        "events": [-row.events for row in table.rows],
        "tokens": [-(row.tokens_in + row.tokens_out) for row in table.rows],
        "time": by_time,
        "name": by_name,
    }[order]
    return most == sorted(most)


def compare(onboard, seed: int, events: int, queries: int) -> Counter[str]:
    """Ask at random and count by hand; how often each table served."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    places = two_organisations(onboard)
    frames = some_usage(places, chance, events)
    mine = [frame for frame in frames if frame.tenant_id == places[0].id]
    served: Counter[str] = Counter()
    for number in range(queries):
        query = some_query(places, chance)
        with door(places[0].id, chance):
            of_tenant = current_scope().tenant_id is not None
            table = run(query)
            from_events = run(query, events_only=True)
        rows, totals = count(mine if of_tenant else frames, query)
        said = (seed, number, query, table.source)
        assert set(table.rows) == rows, said
        assert len(table.rows) == len(rows), said
        assert set(table.totals) == totals, said
        assert (from_events.rows, from_events.totals) == (table.rows, table.totals), said
        assert from_events.source == ("usage_event",)
        assert is_in_order(table), said
        assert not table.truncated
        served.update(table.source)
        served["nothing found"] += not rows
        served["sums alone"] += "usage_event" not in table.source
    return served


def test_any_question_is_answered_as_the_events_would(onboard):
    served = compare(onboard, random.randrange(2**32), events=300, queries=120)
    tables = ("usage_day", "usage_hour", "usage_tag_hour", "usage_event", "sums alone")
    assert all(served[name] >= 3 for name in tables), served
    assert served["nothing found"] < 60, served


@pytest.mark.long
@pytest.mark.timeout(900)
def test_thousands_of_questions_are_answered_as_the_events_would(onboard):
    compare(onboard, random.randrange(2**32), events=2_000, queries=4_000)


def test_a_table_cut_short_says_so_and_its_totals_are_of_everything(organisation):
    models = [f"model-{number}" for number in range(7)]
    frames = [
        settle(organisation, at_ms=clock.to_ms(NOON), model=model, cost_nano=100 - number)
        for number, model in enumerate(models)
    ]
    ingest_segment(message(frames))
    with tenant_scope(organisation.id):
        whole = UsageQuery(NOON, NOON + DAY, group_by=("model",))
        for limit in (6, 7, 8):
            table = run(replace(whole, limit=limit))
            assert [row.groups[0] for row in table.rows] == models[:limit]
            assert table.truncated == (limit < 7)
            assert [row.events for row in table.totals] == [7]


def test_a_tag_is_grouped_with_what_does_not_have_it(organisation):
    at_ms = clock.to_ms(NOON)
    tags = [{"team": "ads"}, {"team": "ads", "feature": "chat"}, {"feature": "chat"}, {}]
    ingest_segment(message([settle(organisation, at_ms=at_ms, tags=each) for each in tags]))
    with tenant_scope(organisation.id):
        table = run(UsageQuery(NOON, NOON + DAY, group_by=("tag:team",)))
        assert {row.groups: row.events for row in table.rows} == {("ads",): 2, ("",): 2}
        assert "usage_event" not in table.source
        all_tagged = UsageQuery(
            NOON, NOON + DAY, group_by=("tag:team",), filters={"tag:team": ("ads",)}
        )
        assert [row.groups for row in run(all_tagged).rows] == [("ads",)]


def test_what_only_single_requests_tell_is_asked_of_a_month_at_most(organisation):
    long = {"start": NOON, "end": NOON + 32 * DAY}
    for refused, words in (
        (UsageQuery(**long, bucket="day", zone=ZoneInfo("Asia/Kolkata")), "tz=UTC"),
        (UsageQuery(**long, group_by=("tag:team", "tag:feature")), "use one"),
        (UsageQuery(**long, group_by=("tag:team", "surface")), "leave one"),
    ):
        with tenant_scope(organisation.id):
            with pytest.raises(CallerError, match=words) as caught:
                run(refused)
            assert run(replace(refused, end=NOON + 31 * DAY)).source == ("usage_event",)
        assert caught.value.code == "period_too_long"


def test_a_month_by_model_and_day_reads_events_of_its_edges_only(organisation):
    """Two edges are two days of events; a month of whole days is none."""
    frames = [settle(organisation, at_ms=clock.to_ms(NOON - day * DAY)) for day in range(40)]
    ingest_segment(message(frames))
    ragged = UsageQuery(
        NOON - timedelta(days=30, minutes=17),
        NOON + timedelta(seconds=5),
        "day",
        group_by=("model",),
    )
    midnight = NOON.replace(hour=0)
    whole = replace(ragged, start=midnight - 30 * DAY, end=midnight)
    with tenant_scope(organisation.id):
        assert tables_read(ragged) == {
            "usage_day", "usage_hour", "usage_event_20260218", "usage_event_20260320",
        }  # fmt: skip
        assert tables_read(whole) == {"usage_day"}
        tagged = replace(whole, group_by=("tag:team",))
        assert tables_read(tagged) == {"usage_day", "usage_tag_hour"}


def tables_read(query: UsageQuery) -> set[str]:
    """The tables in the plan of the query's one statement."""
    statements = []

    def note(execute, sql, params, many, context):
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        run(query)
    ((sql, params),) = statements
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + sql, params)
        return set(re.findall(r'"Relation Name": "(\w+)"', json.dumps(cursor.fetchone()[0])))


def test_a_weighted_split_is_visible_by_model_and_deployment(organisation):
    arms = [("tiny-lm", "default")] * 3 + [("tiny-lm", "canary"), ("identity", "default")]
    at_ms = clock.to_ms(NOON)
    frames = [settle(organisation, at_ms=at_ms, model=model, deployment=arm) for model, arm in arms]
    frames.append(settle(organisation, at_ms=at_ms, model="identity"))
    ingest_segment(message(frames))
    with tenant_scope(organisation.id):
        table = run(UsageQuery(NOON, NOON + DAY, group_by=("deployment",)))
    assert [(row.groups[0], row.events) for row in table.rows] == [
        ("tiny-lm @ default", 3),
        ("identity", 1),
        ("identity @ default", 1),
        ("tiny-lm @ canary", 1),
    ]


def test_before_single_requests_were_kept_only_whole_hours_are_answered(organisation, settings):
    settings.USAGE_RETENTION_DAYS = 100
    ingest_segment(message([settle(organisation, at_ms=clock.to_ms(NOON))]))
    ragged = UsageQuery(NOON - timedelta(minutes=5), NOON + DAY)
    with tenant_scope(organisation.id):
        with clock.frozen(NOON + 101 * DAY):
            with pytest.raises(CallerError, match="100 days") as caught:
                run(ragged)
            assert run(replace(ragged, start=NOON)).totals[0].events == 1
        with clock.frozen(NOON + 99 * DAY):
            assert run(ragged).totals[0].events == 1
    assert (caught.value.code, caught.value.field) == ("single_requests_gone", "from")


def test_usage_needs_a_door(organisation):
    with pytest.raises(TenantScopeMissing):
        run(UsageQuery(NOON, NOON + DAY))
