"""Credit pays what an invoice owes: in order, in scope, while it is live, and once."""

from datetime import timedelta

import pytest

from billing.credits import queries
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.queries import invoice_with_lines, upcoming_invoice
from billing.payments.collect import collect
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import (
    booked,
    check_conservation,
    credit_of,
    give,
    moved,
    remaining,
    spend,
)
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
OCTOBER, NOVEMBER, DECEMBER = utc(10, 1), utc(11, 1), utc(12, 1)
MOMENT = timedelta(microseconds=1)


@pytest.fixture
def october(acme, prices):
    """The tenant in October, its September closed."""
    close_period(acme.id, OCTOBER)
    with clock.frozen(utc(10, 2)):
        yield acme


def closed(tenant, until=NOVEMBER) -> Invoice:
    with clock.frozen(utc(11, 24)):
        invoice = close_period(tenant.id, until)
    assert invoice is not None
    return invoice


def test_grants_are_drawn_in_their_order_and_the_total_is_what_is_left(october, prices):
    for minor, key, terms in (
        (100, "never", {}),
        (100, "bought, december", {"kind": "purchased", "expires_at": DECEMBER}),
        (100, "given, december", {"expires_at": DECEMBER}),
        (100, "given, november 10", {"expires_at": utc(11, 10)}),
        (100, "first", {"priority": 0, "kind": "purchased"}),
        (100, "last", {"priority": 100, "expires_at": utc(11, 2)}),
    ):
        give(october, minor, key, **terms)
    spend(october, prices, utc(10, 5), 430)
    invoice = closed(october)
    assert credit_of(october, invoice) == [
        ("first", -100),
        ("given, november 10", -100),
        ("given, december", -100),
        ("bought, december", -100),
        ("never", -30),
    ]
    assert invoice.total_minor == 0
    assert remaining(october) == {"never": 70, "last": 100}
    assert booked(october) == {
        "credits:promotional": -170,
        "payments": 200,
        "promotions": 400,
        "receivable": -430,
    }
    check_conservation(october)


def test_of_two_that_are_alike_the_older_is_drawn_first(october, prices):
    give(october, 10, "older")
    with clock.frozen(utc(10, 3)):
        give(october, 10, "younger")
    spend(october, prices, utc(10, 5), 15)
    assert credit_of(october, closed(october)) == [("older", -10), ("younger", -5)]


def test_what_credit_does_not_cover_is_owed(october, prices):
    give(october, 40, "some")
    spend(october, prices, utc(10, 5), 100)
    invoice = closed(october)
    assert invoice.total_minor == 60
    with tenant_scope(october.id):
        lines = [each.amount_minor for each in InvoiceLine.objects.order_by("position")]
        view = invoice_with_lines(invoice.id)
    assert lines == [100, -40]
    assert view is not None
    assert [line.description for line in view.lines][1] == "Promotional credit: some"


@pytest.mark.parametrize(
    ("scope", "paid"),
    [
        ({}, 312),
        ({"models_only": ("minilm",)}, 100),
        ({"models_only": ("tiny-lm",)}, 212),
        ({"meters_only": ("input_tokens",)}, 300),
        ({"meters_only": ("requests",)}, 12),
        ({"models_only": ("minilm",), "meters_only": ("requests",)}, 0),
        ({"models_only": ("another",)}, 0),
    ],
)
def test_a_grant_pays_for_its_models_and_meters_alone(october, prices, scope, paid):
    give(october, 1_000, "scoped", **scope)
    spend(october, prices, utc(10, 5), 100)
    with clock.frozen(utc(10, 6)):
        ingest(used(october, prices, utc(10, 6), "tiny-lm", tokens_in=1_000_000, requests=12))
    invoice = closed(october)
    assert invoice.total_minor == 312 - paid
    assert credit_of(october, invoice) == ([("scoped", -paid)] if paid else [])


@pytest.mark.parametrize(
    ("terms", "paid"),
    [
        ({"expires_at": NOVEMBER - MOMENT}, 0),
        ({"expires_at": NOVEMBER}, 50),  # it ends with the month, which it pays for
        ({"effective_at": NOVEMBER - MOMENT}, 50),
        ({"effective_at": NOVEMBER}, 0),  # it begins with the next month, and pays for that one
    ],
)
def test_a_grant_pays_for_a_period_whose_last_instant_it_is_live_at(october, prices, terms, paid):
    give(october, 50, "edge", **terms)
    spend(october, prices, utc(10, 5), 80)
    assert closed(october).total_minor == 80 - paid


def test_an_invoice_that_credit_pays_for_is_paid_without_a_charge(october, prices):
    give(october, 500, "plenty")
    spend(october, prices, utc(10, 5), 123)
    invoice = closed(october)
    assert (invoice.total_minor, invoice.status) == (0, "draft")
    nobody: object = object()  # a provider that is asked for anything fails the test
    outcome = collect(october.id, invoice.id, nobody)  # type: ignore[arg-type]
    assert (outcome.status, outcome.collection_state) == ("paid", "done")
    assert collect(october.id, invoice.id, nobody).status == "paid"  # type: ignore[arg-type]
    assert booked(october) == {
        "credits:promotional": -377,
        "promotions": 500,
        "revenue:input_tokens": -123,
    }


def test_closing_again_draws_nothing_more(october, prices):
    give(october, 500, "plenty")
    spend(october, prices, utc(10, 5), 123)
    first, again = closed(october), closed(october)
    assert (again.id, again.total_minor) == (first.id, 0)
    assert moved(october) == [("drawn", "plenty", 123)]


def test_a_period_that_owes_nothing_draws_nothing(october, prices):
    give(october, 500, "plenty")
    with clock.frozen(utc(11, 24)):
        assert close_period(october.id, NOVEMBER) is None
    assert remaining(october) == {"plenty": 500}


def test_the_upcoming_invoice_shows_the_credit_that_closing_draws(october, prices):
    give(october, 40, "some")
    give(october, 40, "more", models_only=("tiny-lm",))
    spend(october, prices, utc(10, 1, 5), 100)
    with clock.frozen(utc(10, 3)):
        with tenant_scope(october.id):
            upcoming = upcoming_invoice()
            assert queries.balance().total_minor == 80
        invoice = close_period(october.id, clock.now())
    assert upcoming is not None
    assert invoice is not None
    with tenant_scope(october.id):
        view = invoice_with_lines(invoice.id)
    assert view is not None
    assert upcoming.total_minor == view.total_minor == 60
    assert [(line.description, line.amount_minor) for line in upcoming.lines] == [
        (line.description, line.amount_minor) for line in view.lines
    ]


def test_credit_of_another_organisation_is_out_of_reach(october, prices, onboard):
    with clock.frozen(utc(9, 10)):
        globex = onboard("globex")
    give(globex, 500, "theirs")
    spend(october, prices, utc(10, 5), 100)
    assert closed(october).total_minor == 100
    assert remaining(globex) == {"theirs": 500}
