"""What may be asked of usage, and what is told of the rest. No database."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.usage_query import (
    BUCKET_DAYS_MAX,
    ROWS_MAX,
    RequestQuery,
    UsageQuery,
    parse,
    parse_requests,
)

NOW = datetime(2026, 11, 3, 15, 20, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = "0199d1e2-7b1c-7c3e-8a44-2f7f1d0e9a55"


@pytest.fixture(autouse=True)
def third_of_november():
    with clock.frozen(NOW):
        yield


def asked(text: str) -> UsageQuery:
    """The query of `name=value name=value`."""
    params: dict[str, list[str]] = {}
    for pair in text.split(";"):
        name, _, value = pair.partition("=")
        params.setdefault(name, []).append(value)
    return parse(params)


def test_every_parameter_has_its_place():
    query = asked(
        "from=2026-10-01;to=2026-10-31T12:00:00+02:00;bucket=day;tz=Europe/Berlin;"
        "group_by=model,tag:team;group_by=key;model=a;model=b, c;tag:team=ads;status=ok;"
        f"key={KEY};order=events;limit=10"
    )
    assert query == UsageQuery(
        start=datetime(2026, 9, 30, 22, tzinfo=UTC),
        end=datetime(2026, 10, 31, 10, tzinfo=UTC),
        bucket="day",
        zone=ZoneInfo("Europe/Berlin"),
        group_by=("model", "tag:team", "key"),
        filters={"model": ("a", "b, c"), "tag:team": ("ads",), "status": ("ok",), "key": (KEY,)},
        order="events",
        limit=10,
    )
    assert query.tags == ("team",)
    assert query.dimensions == {"model", "key", "status"}


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("", datetime(2026, 11, 1, tzinfo=UTC), NOW),
        ("to=2026-11-01", datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
        ("tz=Asia/Tokyo", datetime(2026, 10, 31, 15, tzinfo=UTC), NOW),
        ("last=12h", NOW - timedelta(hours=12), NOW),
        ("last=30d", NOW - 30 * DAY, NOW),
        ("last=8w", NOW - 56 * DAY, NOW),
        ("from=2026-11-02T10:00:00 01:00", datetime(2026, 11, 2, 9, tzinfo=UTC), NOW),
        ("from=2026-11-02T10:00;tz=Asia/Kolkata", datetime(2026, 11, 2, 4, 30, tzinfo=UTC), NOW),
    ],
)
def test_a_period_is_told_in_one_of_several_ways(text, start, end):
    query = asked(text) if text else parse({})
    assert (query.start, query.end) == (start, end)


@pytest.mark.parametrize(
    ("text", "code", "field", "words"),
    [
        ("colour=red", "unknown_parameter", "colour", "service_tier"),
        ("group_by=colour", "unknown_dimension", "group_by", "tag:<name>"),
        ("group_by=model;group_by=model", "too_many_groups", "group_by", "once"),
        ("group_by=model,key,status,surface", "too_many_groups", "group_by", "at most 3"),
        ("bucket=week", "unknown_bucket", "bucket", "minute, hour, day, month"),
        ("bucket=day;bucket=hour", "given_twice", "bucket", "once"),
        ("tz=Mars/Olympus", "unknown_time_zone", "tz", "Europe/Berlin"),
        ("tz=../../etc/passwd", "unknown_time_zone", "tz", "Europe/Berlin"),
        ("order=colour", "unknown_order", "order", "time, cost"),
        ("from=yesterday", "invalid_instant", "from", "2026-11-03"),
        ("from=0001-01-01;tz=Asia/Tokyo", "instant_out_of_range", "from", "2000"),
        ("to=0001-01-01", "instant_out_of_range", "to", "2000"),
        ("to=9999-12-31T23:59:59Z", "instant_out_of_range", "to", "2200"),
        ("from=2026-11-03;to=2026-11-03", "period_empty", "from", "before"),
        ("last=soon", "invalid_period", "last", "30d"),
        ("last=9999w", "invalid_period", "last", "ten years"),
        ("last=1d;from=2026-11-01", "given_twice", "last", "or from and to"),
        ("limit=0", "limit_out_of_range", "limit", "50,000"),
        ("limit=50001", "limit_out_of_range", "limit", "50,000"),
        ("limit=-1", "limit_out_of_range", "limit", "50,000"),
        ("limit=٣", "limit_out_of_range", "limit", "50,000"),
        ("status=fine", "unknown_status", "status", "cancelled"),
        ("surface=fax", "unknown_surface", "surface", "openai.chat"),
        ("key=first key", "invalid_id", "key", "UUID"),
        ("model=a\x00b", "invalid_value", "model", "256"),
        ("model=" + "a" * 257, "invalid_value", "model", "256"),
        ("tag:=x", "unknown_parameter", "tag:", "tag:<name>"),
        ("tag:a=1;tag:b=1;tag:c=1;tag:d=1;tag:e=1", "too_many_filters", "tag", "at most 4"),
        (";".join(f"model={n}" for n in range(101)), "too_many_values", "model", "100"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(text, code, field, words):
    with pytest.raises(CallerError) as refused:
        asked(text)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert words in refused.value.message
    assert refused.value.status == 400


@pytest.mark.parametrize("bucket", [None, "minute", "hour", "day", "month"])
def test_a_period_may_be_as_long_as_its_bucket_allows(bucket):
    longest = BUCKET_DAYS_MAX[bucket or "month"] * DAY
    UsageQuery(NOW - longest, NOW, bucket)
    with pytest.raises(CallerError, match="shorter period") as refused:
        UsageQuery(NOW - longest - timedelta(microseconds=1), NOW, bucket)
    assert refused.value.code == "period_too_long"


def test_an_instant_without_a_zone_is_our_own_mistake():
    with pytest.raises(ValueError, match="naive"):
        UsageQuery(NOW.replace(tzinfo=None), NOW)


def test_no_query_string_is_anybodys_crash():
    """Whatever arrives is a query or the caller's error."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = [
        "from", "to", "last", "bucket", "tz", "group_by", "order", "limit", "model", "key",
        "status", "tag:team", "tag:", "x",
    ]  # fmt: skip
    texts = [
        "", " ", "0", "-1", "1e9", "2026-11-03", "2026-02-30", "2026-11-03T25:00", "0000-00-00",
        "9999-12-31", "24h", "day", "UTC", "model", "model,key", ",,,", KEY, "\x00", "\ud800", "é",
        "tag:\x00", "%s", "%(zone)s", "'; DROP TABLE usage_day; --", "a" * 3000, "٣d", "Europe",
    ]  # fmt: skip
    parsed = refused = 0
    for _ in range(3_000):
        params = {
            name: chance.choices(texts, k=chance.choice([0, 1, 1, 1, 2]))
            for name in chance.sample(names, chance.randrange(1, 5))
        }
        try:
            query = parse(params)
        except CallerError:
            refused += 1
            continue
        parsed += 1
        assert query.start < query.end
        assert 1 <= query.limit <= ROWS_MAX
    assert min(parsed, refused) > 50


def asked_requests(text: str) -> RequestQuery:
    params: dict[str, list[str]] = {}
    for pair in text.split(";") if text else ():
        name, _, value = pair.partition("=")
        params.setdefault(name, []).append(value)
    return parse_requests(params, limit_default=50, limit_max=500)


def test_requests_are_asked_for_with_the_filters_of_usage():
    assert asked_requests("") == RequestQuery(None, None, {}, 50, None)
    assert asked_requests("to=2026-11-02;limit=500") == RequestQuery(
        None, datetime(2026, 11, 2, tzinfo=UTC), {}, 500, None
    )
    query = asked_requests(f"last=2d;model=a;model=b;tag:team=;cursor={KEY}")
    assert (query.since, query.until) == (NOW - 2 * DAY, NOW)
    assert query.filters == {"model": ("a", "b"), "tag:team": ("",)}
    assert str(query.cursor) == KEY


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("bucket=day", "unknown_parameter", "bucket"),
        ("group_by=model", "unknown_parameter", "group_by"),
        ("cursor=next", "invalid_cursor", "cursor"),
        ("limit=501", "limit_out_of_range", "limit"),
        ("from=2026-11-03;to=2026-11-03", "period_empty", "from"),
        ("status=fine", "unknown_status", "status"),
        ("key=mine", "invalid_id", "key"),
    ],
)
def test_what_cannot_be_asked_of_requests_is_refused_by_name(text, code, field):
    with pytest.raises(CallerError) as refused:
        asked_requests(text)
    assert (refused.value.code, refused.value.field) == (code, field)
