"""Closed periods are read again only where something may have come to them, and owe the same."""

import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.invoicing import account
from billing.invoicing.account import owing
from billing.invoicing.close import close_period, open_period, rate_open
from billing.invoicing.models import Invoice
from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.rerate import rerate
from billing.pricing.book import ModelPrices
from billing.pricing.entry_read import read_entries
from billing.pricing.publish import create_draft, publish
from billing.rating.rate import rate
from meterplane.kernel import clock
from tenants.scoping import system_scope, tenant_scope
from tests.billing.rating.agreements import GRADUATED
from tests.billing.world import PRICES, ingest, publish_prices, used, utc
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db
MONTHS = range(1, 13)
ACTS = {"use": 8, "late": 2, "close": 4, "part": 2, "prices": 2}


@pytest.fixture
def reads(monkeypatch) -> list[object]:
    """The instants that closed periods were read before, by whoever asked what is owed now."""
    found: list[object] = []
    read = account._closed_periods

    def told(before):
        found.append(before)
        return read(before)

    monkeypatch.setattr(account, "_closed_periods", told)
    return found


@pytest.fixture
def customer(onboard):
    with clock.frozen(utc(1, 1)):
        return onboard("customer")


def statements_of(tenant, at) -> list[str]:
    """Of what a page that shows the spend until now asks PostgreSQL."""
    with clock.frozen(at), tenant_scope(tenant.id), CaptureQueriesContext(connection) as asked:
        assert upcoming_invoice(at) is not None
    return [each["sql"] for each in asked.captured_queries]


def test_a_year_of_closed_months_costs_no_more_than_one(customer):
    with clock.frozen(utc(1, 1)):
        version = publish_prices()
    asked = []
    for month in MONTHS[:-1]:
        ingest(*(used(customer, version, utc(month, day), tokens_in=10**6) for day in (2, 20)))
        asked.append(len(statements_of(customer, utc(month, 25))))
        with clock.frozen(utc(month + 1, 1, 2)):
            close_period(customer.id, utc(month + 1, 1))
    assert max(asked[1:]) == min(asked[1:]) <= 12


def test_late_usage_is_on_the_next_invoice_and_then_the_month_rests_again(customer, reads):
    with clock.frozen(utc(1, 1)):
        version = publish_prices()
    for month in (1, 2, 3):
        ingest(used(customer, version, utc(month, 2), tokens_in=10**6))
        with clock.frozen(utc(month + 1, 1, 2)):
            close_period(customer.id, utc(month + 1, 1))
    assert reads == []
    ingest(used(customer, version, utc(4, 2)), used(customer, version, utc(1, 3)))
    ingest(used(customer, version, utc(4, 3)))
    with clock.frozen(utc(5, 1, 2)), tenant_scope(customer.id):
        spent = rate_open(open_period(), utc(5, 1), "USD")
        assert [line.period.is_late for line in spent.lines] == [False, True]
        assert reads == [utc(4, 1)]
        april = close_period(customer.id, utc(5, 1))
    assert april is not None
    assert (april.total_minor, reads) == (3, [utc(4, 1)] * 2)
    ingest(used(customer, version, utc(5, 2)))
    with clock.frozen(utc(6, 1, 2)):
        may = close_period(customer.id, utc(6, 1))
    assert may is not None
    assert (may.total_minor, len(reads)) == (1, 2)


def test_what_was_settled_is_read_again_after_a_worker_of_before_it_could_tell(customer, reads):
    """One that runs the former code raises `revision` alone."""
    with clock.frozen(utc(1, 1)):
        version = publish_prices()
    ingest(used(customer, version, utc(1, 2)))
    with clock.frozen(utc(2, 1, 2)):
        close_period(customer.id, utc(2, 1))
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_revision SET revision = revision + 1")
    ingest(used(customer, version, utc(2, 2)))
    with clock.frozen(utc(2, 20)), tenant_scope(customer.id):
        assert rate_open(open_period(), utc(2, 20), "USD").total_minor == 1
    assert reads == [utc(2, 1)]


@pytest.mark.parametrize("steps", [25, pytest.param(60, marks=pytest.mark.long)])
def test_whatever_happens_both_ways_owe_the_same_and_give_the_same_hash(customer, reads, steps):
    """At random: usage in time and late, months closed whole and in parts, prices plain and in
    tiers. After each step what is owed now is reckoned with and without what closed periods say."""
    chance = random.Random(drawn_seed())
    with clock.frozen(utc(1, 1)):
        version = publish_prices()
    sent = [used(customer, version, utc(1, 2))]
    ingest(*sent)
    now, acts, ways = utc(2, 1, 2), ["close", "use"], []
    for step in range(steps):
        act = (
            acts[step] if step < len(acts) else chance.choices(*zip(*ACTS.items(), strict=True))[0]
        )
        with clock.frozen(now):
            if act in ("use", "late"):
                since = utc(1, 1) if act == "late" else now - timedelta(days=1)
                at = since + chance.random() * (now - since)
                model, tokens_in = chance.choice(sorted(PRICES)), chance.randrange(3) * 10**6
                sent.append(used(customer, version, at, model, tokens_in=tokens_in))
                ingest(sent[-1], *chance.sample(sent, min(2, len(sent))))  # some are told twice
            elif act == "prices":
                version = another_version(chance)
            else:
                until = now if act == "part" else now.replace(day=1, hour=0)
                close_period(customer.id, until)
            ways.append(compared(customer, now, reads))
        now += chance.choice([1, 6, 40]) * timedelta(hours=12)
    assert "short" in ways
    with clock.frozen(now):
        close_period(customer.id, now)
    with tenant_scope(customer.id):
        assert [each.difference_minor for each in rerate()] == [0] * len(rerate())
        assert Invoice.objects.exists()


def compared(tenant, now, reads) -> str:
    """Which way what is owed now was reckoned; the other one gives the same."""
    with tenant_scope(tenant.id):
        running = open_period()
        if running.starts_at >= now:
            return ""
        before = len(reads)
        owed = rate_open(running, now, "USD")
        way = "short" if len(reads) == before and running.follows_at is not None else "long"
        facts = owing(running.starts_at, now)
        whole = rate(facts.quantities, facts.prices, "USD", facts.account)
        assert (owed.lines, owed.content_hash) == (whole.lines, whole.content_hash)
        return way


def another_version(chance):
    """Of the standard book, from now on: other unit prices, or once in three requests in tiers."""
    if chance.random() < 0.3:
        unit = {"type": "unit", "unit_amount": "0.000002"}
        tokens = [{"meter": f"{way}_tokens", "price_model": unit} for way in ("input", "output")]
        entries = [*tokens, {"meter": "requests", "price_model": GRADUATED}]
        draft = create_draft(
            book="standard", currency="USD", entries=read_entries(entries, clock.now())
        )
        return publish(draft.id, confirm=["gap"]).version_id
    price = ModelPrices(chance.randrange(1, 9) * 10**6, 6_000_000, 10_000_000_000)
    return publish_prices(PRICES | {"tiny-lm": price})
