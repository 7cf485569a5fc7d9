"""Interim invoices: who gets one, once; what PostgreSQL refuses; what their lines are made of."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import IntegrityError, connection, connections

from billing.credits.models import CreditMovement
from billing.invoicing import close, interim, line_events, thresholds
from billing.invoicing.close import close_period
from billing.invoicing.interim import interim_shard, make_interim
from billing.invoicing.invoice_csv import lines_csv, usage_csv
from billing.invoicing.models import (
    INTERIMS_PER_PERIOD_MAX,
    BillingPeriod,
    Invoice,
    InvoiceLine,
)
from billing.invoicing.printed import printed_invoice
from billing.invoicing.queries import upcoming_invoice
from billing.ledger.audit import audit
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.queries import request_by_id
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it


@pytest.fixture
def acme(late_november, onboard):
    """An organisation made as November begins: no month before it is to be closed."""
    with clock.frozen(utc(11, 1)):
        return onboard("acme")


def threshold_of(tenant, amount):
    with tenant_scope(tenant.id):
        return thresholds.set_threshold(amount, by="test")


def lines(tenant, invoice, **where) -> list[InvoiceLine]:
    with tenant_scope(tenant.id):
        return list(InvoiceLine.objects.filter(invoice_id=invoice.id, **where).order_by("position"))


# -- thresholds


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0.99", "1 to 1,000,000,000 USD"),
        ("-5", "1 to 1,000,000,000 USD"),
        ("1000000000.01", "1 to 1,000,000,000 USD"),
        ("1.001", "2 decimals"),
        ("NaN", "decimal text"),
        ("", "decimal text"),
        ("ten", "decimal text"),
    ],
)
def test_a_threshold_that_is_none_is_refused(acme, amount, said):
    with pytest.raises(CallerError, match=said) as refused:
        threshold_of(acme, amount)
    assert (refused.value.code, refused.value.field) == ("interim_threshold_invalid", "amount")


def test_an_organisations_own_threshold_stands_above_the_default_of_its_currency(acme, settings):
    def now():
        with tenant_scope(acme.id):
            return thresholds.threshold().amount_minor

    assert now() is None
    settings.INTERIM_THRESHOLDS = {"EUR": "300"}
    assert now() is None
    settings.INTERIM_THRESHOLDS = {"USD": "500.50"}
    assert now() == 500_50
    assert threshold_of(acme, None).amount_minor is None
    assert threshold_of(acme, "1").amount_minor == 1_00
    with tenant_scope(acme.id):
        assert thresholds.use_default().amount_minor == 500_50


def test_everybody_who_has_a_threshold_is_looked_at_and_nobody_else(
    acme, onboard, prices, settings
):
    other = onboard("other")
    for tenant in (acme, other):
        ingest(used(tenant, prices, utc(11, 2), requests=150))  # 1.50 each

    def made():
        return [
            looked.tenant_id
            for shard in range(interim.SHARDS)
            for looked in interim_shard(shard)
            if looked.invoice is not None
        ]

    assert not interim.has_anybody()
    assert made() == []
    threshold_of(other, "1.51")
    assert interim.has_anybody()
    assert made() == []
    settings.INTERIM_THRESHOLDS = {"USD": "1.50"}
    assert made() == [acme.id]
    assert made() == []


# -- once


def test_a_month_that_is_over_is_closed_and_not_billed_in_between(acme, prices):
    threshold_of(acme, "1")
    ingest(used(acme, prices, utc(10, 2), requests=150), used(acme, prices, utc(11, 2)))
    assert make_interim(acme.id) is None
    close_period(acme.id, utc(11, 1))
    assert make_interim(acme.id) is None  # a cent of November
    ingest(used(acme, prices, utc(11, 3), requests=150))
    assert make_interim(acme.id) is not None


def test_nothing_is_left_of_one_that_is_killed_and_the_next_look_makes_it(
    acme, prices, monkeypatch
):
    threshold_of(acme, "1")
    give(acme, 50, effective_at=utc(11, 1))
    ingest(used(acme, prices, utc(11, 2), requests=150))

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(close, "record_taxes", dies)
        with pytest.raises(Killed):
            make_interim(acme.id)
    with tenant_scope(acme.id):
        assert (Invoice.objects.count(), CreditMovement.objects.count()) == (0, 0)
    made = make_interim(acme.id)
    assert (made.total_minor, made.interim_sequence) == (100, 1)
    assert make_interim(acme.id) is None


@committing
def test_many_at_once_make_one_and_a_close_beside_them_takes_it_back(acme, prices):
    threshold_of(acme, "1")
    ingest(used(acme, prices, utc(11, 2), requests=150))
    barrier, failed = Barrier(4), []

    def run(act):
        barrier.wait()
        try:
            act()
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    acts = [lambda: make_interim(acme.id)] * 3
    acts.append(lambda: close_period(acme.id, clock.now() + timedelta(0)))
    threads = [Thread(target=run, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with tenant_scope(acme.id):
        made = list(Invoice.objects.order_by("created_at"))
    # Whoever came first: 1.50 are invoiced once. A close at the very instant of an interim one is
    # refused, and so is the reverse.
    assert sum(each.total_minor for each in made) == 150
    assert [each.code for each in failed] in ([], ["period_invoiced_beyond"])
    with clock.frozen(utc(12, 2)):
        close_period(acme.id, utc(12, 1))
    with tenant_scope(acme.id):
        assert sum(Invoice.objects.values_list("total_minor", flat=True)) == 150
    assert all(verdict.holds for verdict in audit())


def test_no_more_than_so_many_in_a_month(acme, prices, monkeypatch):
    monkeypatch.setattr(interim, "INTERIMS_PER_PERIOD_MAX", 2)
    threshold_of(acme, "1")
    made = []
    for day in (2, 3, 4):
        with clock.frozen(utc(11, day, 12)):
            ingest(used(acme, prices, utc(11, day), requests=100))
            made.append(make_interim(acme.id))
    assert [each and each.interim_sequence for each in made] == [1, 2, None]
    assert INTERIMS_PER_PERIOD_MAX == 30


def test_a_period_is_not_closed_within_what_an_interim_invoice_bills(acme, prices):
    threshold_of(acme, "1")
    ingest(used(acme, prices, utc(11, 2), requests=150))
    with clock.frozen(utc(11, 10)):
        assert make_interim(acme.id) is not None
    for until in (utc(11, 9), utc(11, 10)):
        with pytest.raises(CallerError) as refused:
            close_period(acme.id, until)
        assert refused.value.code == "period_invoiced_beyond"
    assert close_period(acme.id, utc(11, 11)).total_minor == 0


# -- what PostgreSQL refuses


@pytest.fixture
def interims(acme, prices):
    """Of 2 and of 3 November, 1.50 and 1.00."""
    threshold_of(acme, "1")
    made = []
    for day, requests in ((2, 150), (3, 100)):
        with clock.frozen(utc(11, day, 12)):
            ingest(used(acme, prices, utc(11, day), requests=requests))
            made.append(make_interim(acme.id))
    return made


def check_now():
    """What is checked when a transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def copied(invoice, **other):
    """A row like it."""
    row = Invoice.objects.get(id=invoice.id)
    row.pk = None
    row._state.adding = True
    row.id = Invoice._meta.get_field("id").get_default()
    for name, value in other.items():
        setattr(row, name, value)
    row.save(force_insert=True)
    return row


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "follows 2 others"),
        ({"interim_sequence": 4}, "follows 2 others"),
        ({"interim_sequence": 3}, "follows 2 others"),  # not after the last in time
        ({"interim_sequence": 3, "period_end": utc(11, 5), "usage_snapshot": ""}, "or_interim"),
        ({"interim_sequence": 3, "period_end": utc(11, 5), "total_minor": 0}, "take back"),
    ],
)
def test_an_interim_invoice_out_of_its_turn_is_refused(acme, interims, change, said):
    def write():
        with tenant_scope(acme.id):
            copied(interims[1], **change)
            check_now()

    with pytest.raises(IntegrityError, match=said):
        write()


def test_a_period_without_its_interim_invoices_is_refused(acme, interims):
    def write():
        with tenant_scope(acme.id):
            starts_at = interims[0].period_start
            BillingPeriod.objects.create(
                tenant_id=acme.id, starts_at=starts_at, ends_at=utc(12, 1), content_hash=""
            )
            check_now()

    with pytest.raises(IntegrityError, match="has interim invoices"):
        write()


def test_a_line_that_takes_back_another_amount_is_refused(acme, interims, monkeypatch):
    exact = close.interim_lines

    def a_cent_less(*told):
        found = exact(*told)
        found[0].amount_minor += 1
        return found

    monkeypatch.setattr(close, "interim_lines", a_cent_less)

    def write():
        with clock.frozen(utc(12, 2)), tenant_scope(acme.id):
            close_period(acme.id, utc(12, 1))
            check_now()

    with pytest.raises(IntegrityError, match="take back"):
        write()


def test_what_is_taken_back_is_not_taken_back_again_later(acme, interims):
    """Beside a line that makes up for it, so that the invoice adds up as before."""
    with clock.frozen(utc(12, 2)):
        made = close_period(acme.id, utc(12, 1))
    usage, back = lines(acme, made)[0], lines(acme, made, kind="interim")[0]

    def write():
        with tenant_scope(acme.id):
            for line, amount in ((usage, 10), (back, -10)):
                line.pk = line.id = InvoiceLine._meta.get_field("id").get_default()
                line._state.adding = True
                line.position += 100
                line.amount_minor = amount
                line.period_start = utc(11, 9)  # or it would be a line that is there already
                line.save(force_insert=True)
            check_now()

    with pytest.raises(IntegrityError, match="take back"):
        write()


# -- what is shown


@committing
def test_lines_of_an_interim_invoice_lead_to_the_events_that_had_arrived(acme, prices):
    threshold_of(acme, "1")
    first = [used(acme, prices, utc(11, 2), requests=1, tokens_in=60_000) for _ in range(10)]
    with clock.frozen(utc(11, 3)):
        ingest(*first)
        made = make_interim(acme.id)
    later = used(acme, prices, utc(11, 2, 1), tokens_in=5)  # of the same day, and not arrived yet
    ingest(later)
    for line in lines(acme, made):
        with tenant_scope(acme.id):
            source = line_events.line_source(made.id, line.id)
        assert (source.events, source.agrees, source.is_exact) == (10, True, True)
    with tenant_scope(acme.id):
        content, paper = lines_csv(made.id), printed_invoice(made.id)
    assert paper.startswith(b"%PDF")
    assert content.count("\n") == 3
    usage = b"".join(usage_csv(acme.id, made.id)).decode()
    assert [row.split(",")[11] for row in usage.splitlines()[1:]] == ["600000", "10"]


@committing
def test_a_request_is_told_its_interim_invoice_until_its_month_is_closed(acme, prices):
    threshold_of(acme, "1")
    event = used(acme, prices, utc(11, 2), requests=150)
    with clock.frozen(utc(11, 3)):
        ingest(event)

    def told():
        with tenant_scope(acme.id):
            found = line_events.billed_on(request_by_id(event.request_id))
            return [line.invoice_id for line in found.lines], found.closed_at is not None

    assert told() == ([], False)
    with clock.frozen(utc(11, 4)):
        made = make_interim(acme.id)
    assert told() == ([made.id], False)
    with clock.frozen(utc(12, 2)):
        november = close_period(acme.id, utc(12, 1))
    assert told() == ([november.id], True)


def test_the_upcoming_invoice_is_the_one_that_closing_now_gives(acme, interims, prices):
    ingest(used(acme, prices, utc(11, 20), requests=7))
    with tenant_scope(acme.id):
        upcoming = upcoming_invoice()
    assert (upcoming.total_minor, upcoming.already_invoiced_minor) == (7, 250)
    made = close_period(acme.id, clock.now())
    assert made.total_minor == 7
    assert [line.amount_minor for line in upcoming.lines] == [
        line.amount_minor for line in lines(acme, made)
    ]
