"""How far collecting is, counted in the tables, at the cost of one statement over indexes."""

import json
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from django.db import connection

from billing.payments import progress as progressing
from billing.payments.progress import Progress, duration, progress, why_parked
from meterplane.kernel import clock
from tenants.scoping import system_scope
from tests import environment
from tests.billing.payments.closed import Closed
from tests.billing.world import utc

NOW = utc(11, 20, 12)
DAY = timedelta(days=1)


@pytest.fixture
def closed(organisation) -> Iterator[Closed]:
    with clock.frozen(NOW):
        yield Closed(organisation)


def test_nothing_was_closed_yet(closed):
    assert progress() == Progress(None, 0, 0, 0, 0, 0, 0)
    assert (progress().percent, progress().left) == (0, "nothing waits")


def test_a_run_is_what_was_closed_since_the_day_of_the_oldest_that_waits(closed):
    closed.add(4, "done", NOW - 9 * DAY)
    closed.add(2, "parked", NOW - 9 * DAY)
    closed.add(3, "done", NOW - 2 * DAY)
    closed.add(1, "parked", NOW - 1 * DAY)
    closed.add(2, "awaiting_payment", NOW - 1 * DAY)
    closed.add(1, "carried", NOW - 1 * DAY)
    last = progress()
    assert (last.began_on, last.done, last.waiting, last.parked) == (utc(11, 19), 3, 0, 1)
    assert (last.parked_before, last.percent) == (2, 100)
    closed.add(6, "pending", NOW - 2 * DAY)
    now = progress()
    assert (now.began_on, now.done, now.waiting, now.parked) == (utc(11, 18), 6, 6, 1)
    assert (now.total, now.percent, now.rate, now.left) == (
        13,
        53,
        "none",
        "unknown",
    )


def test_one_that_cannot_be_collected_keeps_its_run_open_for_so_long_and_no_longer(closed):
    closed.add(1, "pending", NOW - 400 * DAY)
    closed.add(5, "done", NOW - 36 * DAY)
    closed.add(7, "done", NOW - 34 * DAY)
    now = progress()
    assert (now.began_on, now.done, now.waiting) == (NOW - progressing.LOOKS_BACK, 7, 1)


def test_the_rate_is_of_the_last_minute_and_tells_when_it_will_be_over(closed):
    closed.add(200, "pending", NOW - timedelta(hours=1))
    closed.finalise(30, NOW - timedelta(minutes=9), timedelta(seconds=1))
    assert progress().rate_milli == 0, "that was long ago"
    closed.finalise(50, NOW - timedelta(seconds=20), timedelta(milliseconds=400))
    now = progress()
    assert (now.rate_milli, now.rate, now.left_s, now.left) == (2_500, "2.5/s", 80, "1 min 20 s")


def test_what_is_held_by_a_worker_is_in_hand(closed):
    closed.add(9, "pending", NOW - timedelta(hours=1))
    closed.finalise(2, NOW - DAY, timedelta(0), until=NOW + timedelta(minutes=1))
    closed.finalise(3, NOW - DAY, timedelta(0), until=NOW - timedelta(minutes=1))
    assert progress().in_hand == 2


@pytest.mark.parametrize(
    ("milli", "said"), [(0, "none"), (17, "1/min"), (900, "54/min"),
                        (1_000, "1.0/s"), (24_970, "24.9/s")],
)  # fmt: skip
def test_a_rate_is_said_in_the_unit_that_tells_something(milli, said):
    assert Progress(NOW, 1, 1, 0, 0, 0, milli).rate == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (3_905, "1 h 5 min"), (180_061, "2 d 2 h")],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("note", "said"),
    [("", ""), ("No address.", "No address."), ("Ours and theirs differ:\n a\n", "a"),
     ("Ours and theirs differ:\na\nb\nc", "a, and 2 more"), ("Twice.\nSo.", "Twice., and 1 more")],
)  # fmt: skip
def test_why_one_is_parked_is_said_in_a_line(note, said):
    assert why_parked(note) == said


@pytest.mark.django_db(transaction=True)
def test_ten_thousand_invoices_are_counted_over_indexes(organisation):
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")  # no trigger for each row
        closed = Closed(organisation, admin.execute)
        closed.add(9_000, "done", NOW - 60 * DAY)
        closed.add(900, "done", NOW - timedelta(hours=1))
        closed.add(90, "pending", NOW - timedelta(hours=1))
        closed.add(10, "parked", NOW - timedelta(hours=1))
        closed.finalise(2_000, NOW - 2 * DAY, timedelta(seconds=1))
        admin.execute("ANALYZE invoice, payment_run, payment_step")
    with clock.frozen(NOW):
        now = progress()
    assert (now.done, now.waiting, now.parked) == (900, 90, 10)
    asked = {"now": NOW, "looks_back": progressing.LOOKS_BACK, "rate_over_s": 60}
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {progressing._COUNTED}", asked)
        [found] = cursor.fetchone()
    [plan] = found if isinstance(found, list) else json.loads(found)
    said = json.dumps(plan)
    assert '"Seq Scan"' not in said, said
    for index in ("invoice_uncollected", "invoice_created", "payment_step_finalised"):
        assert index in said, index
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 1_500
    print(f"counted in {plan['Execution Time']} ms")
