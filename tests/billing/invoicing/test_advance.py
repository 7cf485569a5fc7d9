"""An invoice only moves forward, and its number leaves no gap."""

from itertools import permutations
from threading import Barrier, Thread

import pytest
from django.db import connection, connections, transaction

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice, InvoiceSeries
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it


@pytest.fixture
def drafts(acme, prices):
    """Six drafts, one per day of November."""
    made = []
    for day in range(2, 8):
        ingest(used(acme, prices, utc(11, day - 1, 12)))
        made.append(close_period(acme.id, utc(11, day)))
    return made


def tell(tenant, invoice, status, **more):
    with tenant_scope(tenant.id):
        return advance(invoice.id, News(status, clock.now(), **more))


def read(tenant, invoice) -> Invoice:
    with tenant_scope(tenant.id):
        found: Invoice = Invoice.objects.get(id=invoice.id)
        return found


@pytest.mark.parametrize(
    ("told", "ends"),
    [
        (["draft"], "draft"),
        (["open"], "open"),
        (["paid"], "paid"),
        (["void"], "void"),
        (["open", "uncollectible", "paid"], "paid"),
        (["open", "uncollectible", "open"], "uncollectible"),
        (["paid", "open"], "paid"),
        (["paid", "void"], "paid"),
        (["void", "paid"], "void"),
        (["open", "draft"], "open"),
    ],
)
def test_old_news_and_impossible_moves_change_nothing(acme, drafts, told, ends):
    for status in told:
        tell(acme, drafts[0], status)
    invoice = read(acme, drafts[0])
    assert invoice.status == ends
    assert (invoice.number is None) == (ends == "draft")
    assert (invoice.paid_at is not None) == (ends == "paid")


def test_news_in_any_order_ends_the_same(acme, drafts):
    for invoice, order in zip(drafts, permutations(["draft", "open", "paid"]), strict=True):
        for status in order:
            tell(acme, invoice, status)
            tell(acme, invoice, status)
        assert read(acme, invoice).status == "paid"


def test_hosted_url_and_attempts_are_kept_and_never_go_back(acme, drafts):
    tell(acme, drafts[0], "open", hosted_url="https://pay.example/1", attempts=2)
    tell(acme, drafts[0], "open", attempts=1)
    invoice = read(acme, drafts[0])
    assert (invoice.hosted_url, invoice.payment_attempts) == ("https://pay.example/1", 2)


@committing
def test_numbers_have_no_gap_though_finalised_at_once_and_some_rolled_back(acme, drafts):
    barrier, failed = Barrier(len(drafts)), []

    def finalise(place, invoice):
        barrier.wait()
        try:
            with tenant_scope(acme.id):
                if place % 3 == 0:
                    savepoint = transaction.savepoint()
                    advance(invoice.id, News("open", clock.now()))
                    transaction.savepoint_rollback(savepoint)
                advance(invoice.id, News("open", clock.now()))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=finalise, args=pair) for pair in enumerate(drafts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    numbers = sorted(read(acme, invoice).number or "" for invoice in drafts)
    assert numbers == [f"ACME-{number:06d}" for number in range(1, len(drafts) + 1)]


def waits_for_a_row() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        return cursor.fetchone() is not None


@committing
def test_a_draft_that_is_voided_waits_for_its_number_before_credit_and_ledger(acme, prices):
    give(acme, 1, effective_at=utc(11, 1))
    ingest(used(acme, prices, utc(11, 1, 12)))
    drew = close_period(acme.id, utc(11, 2))
    ingest(used(acme, prices, utc(11, 2, 12)))
    other = close_period(acme.id, utc(11, 3))
    tell(acme, other, "open")  # the series has begun
    failed: list[Exception] = []

    def void():
        try:
            tell(acme, drew, "void")
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    voiding = Thread(target=void)
    with tenant_scope(acme.id):
        InvoiceSeries.objects.select_for_update().get()  # as whoever finalises another one
        voiding.start()
        while not waits_for_a_row():
            assert voiding.is_alive(), failed
        advance(other.id, News("paid", clock.now()))
    voiding.join()
    assert failed == []
    assert read(acme, drew).status == "void"


def test_slugs_that_differ_in_case_only_have_series_of_their_own(acme, drafts, onboard, prices):
    tell(acme, drafts[0], "open")
    other = onboard("ACME")
    ingest(used(other, prices, utc(11, 5)))
    invoice = close_period(other.id, clock.now())
    tell(other, invoice, "open")
    number = read(other, invoice).number
    assert number == f"ACME-{other.id.hex[-6:].upper()}-000001"
    with tenant_scope(other.id):
        assert InvoiceSeries.objects.get().last_number == 1
