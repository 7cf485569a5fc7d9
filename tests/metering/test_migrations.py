"""Usage from before a column is kept, and its hours and days can be added to."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from meterplane.kernel import clock
from meterplane.metering import arrivals
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import UsageDay, UsageEvent, UsageHour, UsageMonth
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.metering.segments import message, settle
from tests.metering.tables import digest_of_usage

pytestmark = pytest.mark.django_db(transaction=True)

OLD_EVENTS = "0002_content_and_currency"
KEY_SWAP = "0004_hours_by_tier_and_deployment"
BEFORE_SERVED = "0015_arrivals"
BEFORE_ARRIVALS = "0014_days_in_files"
BEFORE_MONTHS = "0017_arrived_on_time"


@contextmanager
def owner() -> Iterator[None]:
    """The connection that may migrate."""
    app = {name: connection.settings_dict[name] for name in ("USER", "PASSWORD")}
    password = environment.PASSWORDS["meterplane_owner"]
    connection.close()
    connection.settings_dict |= {"USER": "meterplane_owner", "PASSWORD": password}
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict |= app


def migrate(*target: str) -> None:
    """To one of ours, or to the newest of all: what rests on ours went with them."""
    with owner():
        call_command("migrate", *target, verbosity=0, interactive=False)


@pytest.mark.long
def test_old_events_and_hours_get_the_defaults_and_the_longer_key(organisation):
    at_ms = clock.to_ms(clock.now() - timedelta(days=1))
    ingest_segment(message([settle(organisation, at_ms=at_ms) for _ in range(3)]))
    migrate("metering", OLD_EVENTS)
    try:
        with psycopg.connect(environment.database_url("postgres")) as admin:
            key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
            assert "deployment" not in str(admin.execute(key, ["usage_hour_pkey"]).fetchone())
    finally:
        migrate()
    ingest_segment(
        message(
            [
                settle(organisation, at_ms=at_ms),
                settle(organisation, at_ms=at_ms, deployment="canary"),
                settle(organisation, at_ms=at_ms, service_tier="batch"),
            ]
        )
    )
    with tenant_scope(organisation.id):
        assert UsageEvent.objects.filter(service_tier="standard", deployment="").count() == 4
        hours = {(row.service_tier, row.deployment): row.events for row in UsageHour.objects.all()}
    assert hours == {("standard", ""): 4, ("standard", "canary"): 1, ("batch", ""): 1}


@pytest.mark.long
def test_a_key_swap_that_was_cut_off_can_be_run_again(organisation):
    migrate("metering", KEY_SWAP)
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE UNIQUE INDEX usage_hour_next_key ON usage_hour (tenant_id, hour)")
        admin.execute("DELETE FROM django_migrations WHERE app = 'metering' AND name LIKE '0004%'")
    migrate()
    ingest_segment(message([settle(organisation, deployment=arm) for arm in ("a", "b")]))
    with tenant_scope(organisation.id):
        assert UsageHour.objects.count() == 2


def test_usage_from_before_it_said_how_it_was_served_is_of_normal_priority_and_of_no_place(
    organisation,
):
    at_ms = clock.to_ms(clock.now() - timedelta(days=1))
    ingest_segment(message([settle(organisation, at_ms=at_ms) for _ in range(3)]))
    migrate("metering", BEFORE_SERVED)
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
        files = (
            "SELECT pg_relation_filenode(oid) FROM pg_class"
            " WHERE relname LIKE 'usage_%%' AND relname <> 'usage_month'"  # made later
        )
        try:
            for table in ("usage_hour", "usage_day"):
                assert "region" not in str(admin.execute(key, [f"{table}_pkey"]).fetchone())
            relations = f"{files} AND relkind = 'r' ORDER BY relname"
            before = admin.execute(relations).fetchall()
            # One that was cut off: its columns are there, and an index that is not.
            admin.execute("ALTER TABLE usage_day ADD COLUMN region text NOT NULL DEFAULT ''")
            admin.execute("CREATE UNIQUE INDEX usage_day_next_key ON usage_day (tenant_id, day)")
            cut_off = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
            admin.execute(cut_off, ["usage_day_next_key"])
        finally:
            migrate()
        assert admin.execute(relations).fetchall() == before  # no row was rewritten
    eu = {"priority": "high", "region": "eu", "gpu_type": "H100"}
    ingest_segment(message([settle(organisation, at_ms=at_ms, **each) for each in ({}, eu)]))
    rebuilt = "SELECT rebuild_usage_days(%s, %s)"
    day = clock.from_ms(at_ms).date()
    unsaid = ("normal", "", "")
    with tenant_scope(organisation.id):
        assert UsageEvent.objects.filter(priority="normal", region="", gpu_type="").count() == 4
    for roll_up in (UsageHour, UsageDay, UsageDay):
        with tenant_scope(organisation.id):
            sums = {(r.priority, r.region, r.gpu_type): r.events for r in roll_up.objects.all()}
        assert sums == {unsaid: 4, ("high", "eu", "H100"): 1}
        with system_scope("test"), connection.cursor() as db:
            db.execute(rebuilt, [day, day])


@pytest.mark.long
def test_what_remembers_arrivals_can_be_run_again_after_it_was_cut_off(organisation):
    migrate("metering", BEFORE_ARRIVALS)
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("ALTER TABLE journal_segment ADD COLUMN taken_in_by xid8")
        admin.execute(
            "CREATE FUNCTION hold_usage_arrivals(OUT seen_at timestamptz, OUT seen text)"
            " LANGUAGE sql AS 'SELECT now(), NULL::text'"
        )
        admin.execute("ALTER FUNCTION hold_usage_arrivals() OWNER TO meterplane_owner")
        admin.execute("CREATE INDEX journal_segment_ingested ON journal_segment (ingested_at)")
        cut_off = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
        admin.execute(cut_off, ["journal_segment_ingested"])
    migrate()
    with psycopg.connect(environment.database_url("postgres")) as admin:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass"
        assert admin.execute(valid, ["journal_segment_ingested"]).fetchone() == (True,)
    ingest_segment(message([settle(organisation)]))
    with tenant_scope(organisation.id):
        assert arrivals.hold().is_exact


def test_months_there_are_are_summed_up_and_what_comes_is_added(organisation):
    at_ms = clock.to_ms(clock.now() - timedelta(days=40))
    kinds = [settle(organisation, at_ms=at_ms, tokens_out=n, model=f"m{n % 2}") for n in range(4)]
    ingest_segment(message(kinds))
    before = digest_of_usage()
    migrate("metering", BEFORE_MONTHS)
    try:
        with psycopg.connect(environment.database_url("postgres")) as admin:
            there = admin.execute("SELECT to_regclass('usage_month')").fetchone()
            assert there == (None,)
    finally:
        migrate()
    assert digest_of_usage() == before
    ingest_segment(message([settle(organisation, at_ms=at_ms, model="m1")]))
    with tenant_scope(organisation.id):
        sums = {row.model: (row.events, row.tokens_out) for row in UsageMonth.objects.all()}
    assert sums == {"m0": (2, 2), "m1": (3, 24)}
