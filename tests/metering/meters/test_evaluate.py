"""What a meter counts equals what a person would count, from roll-ups and from events alike."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.db import connection

from meterplane.catalog.meters import BUILT_IN, versions_of
from meterplane.catalog.meters_change import change_meter, create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.overlays import deprecate
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.meters.evaluate import usage_of
from meterplane.metering.meters.sources import Asked, statement_of
from meterplane.metering.queries import usage_between
from meterplane.metering.usage_query import BUCKET_DAYS_MAX
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.catalog.test_meters import GPU, REQUESTS
from tests.metering.external.sent import TYPE, event, send
from tests.metering.segments import message, random_settles, settle

pytestmark = pytest.mark.django_db
SEED = 20_261_130
NOW = datetime(2026, 11, 29, 12, 30, tzinfo=UTC)
SUM = {
    "name": "S", "unit": "s", "event_type": TYPE, "aggregation": "sum", "field": "data.n",
}  # fmt: skip


def meter(definition: dict, slug: str = "m"):
    create_meter(slug, read_definition(definition), by="tests")
    return versions_of(slug)


def count(organisation, versions, start=NOW - timedelta(days=30), end=NOW, **how):
    with tenant_scope(organisation.id):
        return usage_of(versions, start, end, **how)


def values(counted) -> list:
    return [
        (*([row.bucket] if row.bucket else []), *row.group.values(), row.value)
        for row in counted.rows
    ]


def numbers(organisation, listed: list, **more) -> None:
    """Events of `data.n`, a minute apart, the last one a minute before NOW."""
    with clock.frozen(NOW):
        sent = [
            event(str(at), ago=timedelta(minutes=len(listed) - at), data={"n": n} | more)
            for at, n in enumerate(listed)
        ]
        assert {each.status for each in send(*sent)} == {"accepted"}


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", "8.30000000000000001"), ("count", "6"), ("max", "7"), ("last", "-2"),
     ("unique", "5")],
)  # fmt: skip
def test_each_aggregation_is_exact(organisation, aggregation, expected):
    """1 and 1.0 are one number; a text that writes a number is one to add, and another value."""
    listed = [1, Decimal("1.0"), Decimal("1.30000000000000001"), 7, "0.0", -2]
    numbers(organisation, listed)
    field = {} if aggregation == "count" else {"field": "data.n"}
    definition = {name: value for name, value in SUM.items() if name != "field"}
    counted = count(organisation, meter(definition | field | {"aggregation": aggregation}))
    assert values(counted) == [(expected,)]


def test_last_is_by_the_events_time_then_by_receipt(organisation):
    with clock.frozen(NOW):
        ago = timedelta(minutes=5)
        send(event("late", ago=ago, data={"n": 1}), event("early", ago=2 * ago, data={"n": 2}))
        send(*(event(f"at once {n}", ago=ago, data={"n": n}) for n in (3, 9, 4)))
    assert values(count(organisation, meter(SUM | {"aggregation": "last"}))) == [("4",)]


def test_what_has_no_usable_value_is_left_out_and_said(organisation):
    numbers(organisation, [1, "x", None, True, [2], {"n": 3}, "1e3", "4.5"])
    counted = count(organisation, meter(SUM))
    assert values(counted) == [("5.5",)]
    assert [each.skipped for each in counted.versions] == [6]


def test_filters_tell_numbers_texts_and_what_is_missing_apart(organisation):
    with clock.frozen(NOW):
        for number, data in enumerate(
            [{"g": "a"}, {"g": "b"}, {"g": 1}, {"g": Decimal("1.0")}, {"g": "1"}, {}, {"g": True}]
        ):
            send(event(str(number), data=data | {"n": 10**number}))
    cases = [
        ("eq", "a", "1"), ("eq", 1, "1100"), ("eq", "1", "10000"), ("eq", True, "1000000"),
        ("neq", "a", "1111110"), ("in", ["a", "b", 1], "1111"),
    ]  # fmt: skip
    for number, (op, value, expected) in enumerate(cases):
        filters = [{"field": "data.g", "op": op, "value": value}]
        counted = count(organisation, meter(SUM | {"filters": filters}, f"m{number}"))
        assert values(counted) == [(expected,)], (op, value)


def test_rows_are_by_bucket_of_a_zone_and_by_dimension(organisation):
    with clock.frozen(NOW):
        # Half past eleven in Berlin on the 28th, and half past midnight on the 29th.
        for number, (ago, gpu) in enumerate([(14, "a"), (13, "a"), (13, "b"), (12, "a")]):
            send(event(str(number), ago=timedelta(hours=ago), data={"n": 1, "gpu": gpu}))
    versions = meter(SUM | {"dimensions": ["data.gpu", "project"]})
    berlin = ZoneInfo("Europe/Berlin")
    counted = count(organisation, versions, unit="day", zone=berlin, dimensions=["data.gpu"])
    days = [datetime(2026, 11, day, 23, tzinfo=UTC) for day in (27, 28)]
    assert values(counted) == [
        (days[0], "a", "1"), (days[1], "a", "2"), (days[1], "b", "1"),
    ]  # fmt: skip
    assert values(count(organisation, versions, dimensions=["project"])) == [
        (str(organisation.project_id), "4"),
    ]  # fmt: skip


def test_an_overlay_is_counted_and_an_open_backfill_is_not(organisation):
    numbers(organisation, [1, 2, 4])
    versions = meter(SUM)
    with clock.frozen(NOW):
        (sent,) = send(event("x", data={"n": 8}))
        deprecate(sent.receipt.id, reason="twice", by="tests")
    assert values(count(organisation, versions)) == [("7",)]


def test_rounding_is_of_a_row_and_not_of_an_event(organisation):
    numbers(organisation, [Decimal("0.4")] * 10)
    ceil = SUM | {"rounding": {"rule": "ceil"}}
    assert values(count(organisation, meter(ceil))) == [("4",)]
    by_minute = count(
        organisation, versions_of("m"), NOW - timedelta(days=1), unit="minute"
    )  # each row is rounded by itself
    assert [row.value for row in by_minute.rows] == ["1"] * 10


def test_each_version_counts_its_own_part_in_its_own_unit(organisation):
    with clock.frozen(NOW - timedelta(hours=2)):
        versions = meter(SUM | {"field": "data.n", "unit": "second"})
    change = NOW - timedelta(minutes=90)
    hours = SUM | {
        "unit": "hour", "conversion": {"operation": "divide", "by": "3600"},
        "rounding": {"rule": "half_up", "digits": 2}, "aggregation": "max",
    }  # fmt: skip
    with clock.frozen(NOW - timedelta(hours=2)):
        change_meter("m", read_definition(hours), effective_from=change, by="tests")
    with clock.frozen(NOW):
        minutes = {"a": 100, "b": 91, "at": 90, "c": 80, "d": 10}
        send(*(event(name, ago=timedelta(minutes=ago), data={"n": 36 * ago})
               for name, ago in minutes.items()))  # fmt: skip
    versions = versions_of("m")
    counted = count(organisation, versions)
    assert [(row.version, row.value) for row in counted.rows] == [(1, "6876"), (2, "0.9")]
    assert [
        (each.version.number, each.version.definition.unit, each.starts_at, each.ends_at)
        for each in counted.versions
    ] == [(1, "second", NOW - timedelta(days=30), change), (2, "hour", change, NOW)]
    after = count(organisation, versions, start=change)
    assert [each.version.number for each in after.versions] == [2]
    hourly = count(organisation, versions, NOW - timedelta(hours=3), unit="hour")
    eleven = datetime(2026, 11, 29, 11, tzinfo=UTC)
    assert [(row.version, row.bucket, row.value) for row in hourly.rows] == [
        (1, eleven - timedelta(hours=1), "6876"), (2, eleven, "0.9"),
        (2, eleven + timedelta(hours=1), "0.1"),
    ]  # fmt: skip


def test_an_organisation_counts_its_own_events_only(organisation, onboard):
    globex = onboard("globex")
    numbers(organisation, [1, 2])
    with clock.frozen(NOW):
        send(event(subject="globex", data={"n": 100}))
    ingest_segment(message([settle(globex), settle(organisation)]))
    versions = meter(SUM)
    assert values(count(organisation, versions)) == [("3",)]
    assert values(count(globex, versions)) == [("100",)]
    now = clock.now() + timedelta(hours=1)
    for tenant in (organisation, globex):
        own = count(tenant, [BUILT_IN["requests"]], now - timedelta(days=2), now)
        assert values(own) == [("1",)]


# --- requests: roll-ups and events


@pytest.fixture
def used(organisation, onboard):
    """600 random requests of six days, and another tenant's beside them."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    with clock.frozen(NOW):
        frames = random_settles(organisation, chance, 600, days=6)
        others = random_settles(onboard("globex"), chance, 50, days=6)
    ingest_segment(message(frames + others))
    return frames


CASES = [
    ("sum", "tokens_in", [], []),
    ("sum", "tokens_out", ["model"], []),
    ("sum", "requests", ["model", "status", "service_tier"], []),
    ("count", "", ["surface"], [{"field": "status", "op": "neq", "value": "ok"}]),
    ("sum", "total_ms", ["deployment"], [{"field": "model", "op": "in",
                                          "value": ["tiny-lm", "identity"]}]),
    ("sum", "compute_us", ["key", "project"], [{"field": "service_tier", "op": "eq",
                                                "value": "batch"}]),
]  # fmt: skip
PERIODS = [
    (NOW - timedelta(days=6), NOW),
    (NOW - timedelta(days=5, hours=3, minutes=17), NOW - timedelta(hours=7, seconds=5)),
    (datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 27, tzinfo=UTC)),
    (NOW - timedelta(minutes=50), NOW),
]
BUCKETS = [
    (None, "UTC"), ("hour", "UTC"), ("day", "UTC"), ("month", "UTC"), ("day", "Europe/Berlin"),
    ("day", "Asia/Kolkata"), ("hour", "Asia/Kolkata"), ("month", "America/New_York"),
]  # fmt: skip


@pytest.mark.parametrize(("aggregation", "field", "dimensions", "filters"), CASES)
def test_roll_ups_and_events_give_the_same_rows(
    organisation, used, aggregation, field, dimensions, filters
):
    versions = meter(
        REQUESTS
        | {"aggregation": aggregation, "field": field, "dimensions": dimensions, "filters": filters}
    )
    rows = 0
    for start, end in PERIODS:
        for unit, zone in BUCKETS:
            how = {"unit": unit, "zone": ZoneInfo(zone), "dimensions": dimensions}
            by_sums = count(organisation, versions, start, end, **how)
            by_events = count(organisation, versions, start, end, **how, rolled_up=False)
            assert by_sums == by_events, (start, end, unit, zone)
            rows += len(by_sums.rows)
    assert rows > 60


def test_events_are_counted_as_a_person_would(organisation, used):
    expected: dict[tuple, int] = defaultdict(int)
    most: dict[str, int] = {}
    for each in used:
        expected[(each.model, each.status)] += each.tokens_in
        most[each.model] = max(most.get(each.model, 0), each.tokens_out)
    start = NOW - timedelta(days=6)
    own = [BUILT_IN["input_tokens"]]
    counted = count(organisation, own, start, dimensions=["model", "status"])
    assert {row[:2]: int(row[2]) for row in values(counted)} == expected
    top = meter(REQUESTS | {"aggregation": "max", "field": "tokens_out", "dimensions": ["model"]})
    assert {
        row[0]: int(row[1]) for row in values(count(organisation, top, start, dimensions=["model"]))
    } == most
    models = meter(REQUESTS | {"aggregation": "unique", "field": "model"}, "models")
    assert values(count(organisation, models, start)) == [(str(len(most)),)]
    last = meter(REQUESTS | {"aggregation": "last", "field": "tokens_in"}, "last")
    newest = max(used, key=lambda each: (each.admitted_at_ms, each.request_id))
    assert values(count(organisation, last, start)) == [(str(newest.tokens_in),)]


def test_the_products_own_meters_count_what_is_rated(organisation, used):
    start = NOW - timedelta(days=6)
    with tenant_scope(organisation.id):
        rated = usage_between(start, NOW)
    for slug, column in [
        ("input_tokens", "tokens_in"), ("output_tokens", "tokens_out"), ("requests", "requests"),
    ]:  # fmt: skip
        counted = count(organisation, [BUILT_IN[slug]], start, dimensions=["model", "service_tier"])
        expected: dict[tuple, int] = defaultdict(int)
        for each in rated:
            expected[(each.model, each.service_tier)] += getattr(each, column)
        assert {row[:2]: int(row[2]) for row in values(counted)} == expected


def test_tags_tell_requests_apart(organisation):
    at_ms = clock.to_ms(NOW - timedelta(hours=1))
    ingest_segment(
        message(
            [
                settle(organisation, at_ms=at_ms, tags=tags)
                for tags in ({"team": "a"}, {"team": "a"}, {"team": "b"}, {})
            ]
        )
    )
    versions = meter(REQUESTS | {"dimensions": ["tags.team"]})
    assert values(count(organisation, versions, dimensions=["tags.team"])) == [
        ("a", "20"), ("b", "10"), (None, "10"),
    ]  # fmt: skip
    teams = meter(REQUESTS | {"aggregation": "unique", "field": "tags.team"}, "teams")
    assert values(count(organisation, teams)) == [("2",)]


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"start": NOW, "end": NOW}, "from"),
        ({"start": NOW - timedelta(days=BUCKET_DAYS_MAX["month"] + 1)}, "to"),
        ({"unit": "minute"}, "to"),
        ({"dimensions": ["data.colour"]}, "group_by"),
        ({"dimensions": ["data.gpu", "data.gpu"]}, "group_by"),
    ],
)
def test_what_asks_for_too_much_is_said_by_its_field(organisation, how, field):
    with pytest.raises(CallerError) as refused:
        count(organisation, meter(GPU), **how)
    assert refused.value.field == field


def test_single_requests_are_counted_over_a_quarter_at_most(organisation):
    versions = meter(REQUESTS | {"aggregation": "max"})
    with pytest.raises(CallerError, match="single requests"):
        count(organisation, versions, NOW - timedelta(days=93))
    assert count(organisation, [BUILT_IN["requests"]], NOW - timedelta(days=400)).rows == []


def test_a_conversion_of_a_sum_is_exact(organisation):
    numbers(organisation, [1, 1, 1], gpu="h200")
    versions = meter(GPU | {"field": "data.n", "rounding": {"rule": "ceil", "digits": 12}})
    ((value,),) = values(count(organisation, versions))
    assert Fraction(3, 3600) <= Fraction(value) < Fraction(3, 3600) + Fraction(1, 10**12)


MANY_EVENTS = """
INSERT INTO external_event (id, tenant_id, project_id, source, event_id, type, event_at,
       time_was_sent, data, attributes, digest, content_digest, received_at, received_by)
SELECT gen_random_uuid(), %(tenant)s, %(project)s, '/jobs', n::text, %(type)s,
       %(now)s - n * interval '5 minutes', true, '{"n": 1}', '{}', sha256(''), sha256(''), %(now)s,
       'tests'
  FROM generate_series(1, 20000) n
"""
MANY_OVERLAYS = """
INSERT INTO event_overlay (tenant_id, receipt_id, number, kind, event_at, data, counts, reason,
       made_by, made_at, digest_before, digest_after)
SELECT tenant_id, id, 1, 'amend', event_at, '{"n": 2}', true, 'why', 'tests', %(now)s, sha256(''),
       sha256('')
  FROM external_event WHERE event_id::int %% 10 = 0
"""


@pytest.mark.django_db(transaction=True)
def test_an_interval_of_external_events_is_found_by_index(organisation):
    """Those nobody corrected by their time, the others by the time of their overlay."""
    values = {"tenant": organisation.id, "project": organisation.project_id, "type": TYPE}
    with system_scope("test"), connection.cursor() as db:
        db.execute(MANY_EVENTS, values | {"now": NOW})
        db.execute(MANY_OVERLAYS, {"now": NOW})
    with psycopg.connect(environment.database_url("postgres")) as admin:
        admin.execute("ANALYZE external_event, event_overlay")
    asked = Asked(NOW - timedelta(days=1), NOW, None, ZoneInfo("UTC"), ())
    with tenant_scope(organisation.id), connection.cursor() as db:
        statement, parameters = statement_of(read_definition(SUM), asked, rows_max=1)
        db.execute(statement, parameters)
        assert db.fetchone()[1] == 260 + 2 * 28  # 288 times five minutes, every tenth counts 2
        db.execute(f"EXPLAIN {statement}", parameters)
        plan = "\n".join(line for (line,) in db.fetchall())
    for index in ("external_event_of_type", "event_overlay_at"):
        condition = plan.partition(index)[2].partition("Index Cond:")[2].partition("\n")[0]
        assert "event_at >=" in condition, plan
