"""What a page asks of PostgreSQL stays small as usage grows: few days are read, by index."""

import json
import random
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from meterplane.kernel import clock
from meterplane.metering import queries
from meterplane.metering.ingest import ingest_segment
from tenants.scoping import system_scope, tenant_scope
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAYS = 45


@pytest.fixture
def two_tenants(organisation, onboard):
    """Usage of 45 days, a few requests a day, of two organisations."""
    chance = random.Random(6)
    globex = onboard("globex")
    frames = [
        settle(
            chance.choice([organisation, globex]),
            at_ms=clock.to_ms(NOON) - day * 86_400_000 - chance.randrange(3_600_000),
            status=chance.choice(["ok", "error"]),
        )
        for day in range(DAYS)
        for _ in range(6)
    ]
    ingest_segment(message(frames))
    return organisation, globex, frames


def days_read(ask) -> set[str]:
    """The partitions that the last statement of `ask()` reads."""
    statements = []

    def note(execute, sql, params, many, context):
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        ask()
    sql, params = statements[-1]
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + sql, params)
        return set(re.findall(r"usage_event_\d{8}(?=\")", json.dumps(cursor.fetchone()[0])))


def test_a_month_reads_the_days_of_its_edges_only(two_tenants):
    organisation, _, _ = two_tenants
    start, end = NOON - timedelta(days=30, minutes=17), NOON + timedelta(seconds=5)
    with tenant_scope(organisation.id):
        assert len(days_read(lambda: queries.usage_between(start, end))) == 2


def test_one_request_is_found_in_one_day(two_tenants):
    organisation, _, frames = two_tenants
    mine = next(frame for frame in frames if frame.tenant_id == organisation.id)
    with tenant_scope(organisation.id):
        assert len(days_read(lambda: queries.request_by_id(mine.request_id))) == 1


def test_the_newest_page_reads_two_days_and_a_long_one_what_it_needs(two_tenants):
    organisation, globex, frames = two_tenants
    for door, mine in (
        (tenant_scope(organisation.id), [f for f in frames if f.tenant_id == organisation.id]),
        (tenant_scope(globex.id), [f for f in frames if f.tenant_id == globex.id]),
        (system_scope("test"), frames),
    ):
        newest_first = [f.request_id for f in sorted(mine, key=lambda f: f.request_id)][::-1]
        with clock.frozen(NOON), door:
            assert len(days_read(lambda: queries.recent_requests(1, until=NOON))) == 2
            found = [row.request_id for row in queries.recent_requests(500)]
        assert found == newest_first


def test_a_page_looks_back_three_months_and_says_so(organisation):
    old = settle(organisation, at_ms=clock.to_ms(NOON - timedelta(days=200)))
    new = settle(organisation, at_ms=clock.to_ms(NOON))
    ingest_segment(message([old, new]))
    with tenant_scope(organisation.id):
        assert [row.request_id for row in queries.recent_requests(10)] == [new.request_id]
        until = NOON - timedelta(days=150)
        assert [row.request_id for row in queries.recent_requests(10, until=until)] == [
            old.request_id
        ]


def test_filters_and_pages_go_together(two_tenants):
    organisation, _, frames = two_tenants
    failed = sorted(
        frame.request_id
        for frame in frames
        if frame.tenant_id == organisation.id and frame.status == "error"
    )[::-1]
    shown, before = [], None
    with tenant_scope(organisation.id):
        while page := queries.recent_requests(7, before, filters={"status": ("error",)}):
            shown += [row.request_id for row in page]
            before = page[-1].request_id
        assert (
            queries.recent_requests(7, filters={"status": ("error",), "model": ("another",)}) == []
        )
        assert len(queries.recent_requests(7, filters={"key": (str(organisation.key_id),)})) == 7
    assert shown == failed


def test_an_instant_without_a_zone_is_refused(organisation):
    naive = datetime(2026, 3, 20)  # noqa: DTZ001 - this is the mistake
    with tenant_scope(organisation.id), pytest.raises(ValueError, match="naive"):
        queries.usage_between(naive, NOON)
