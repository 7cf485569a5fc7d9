"""Money is in the ledger when an invoice's state moves: in that transaction, once, and balanced."""

from threading import Barrier, Thread

import pytest
from django.db import connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.ledger.queries import entries_of
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.invoicing.drafts import draft
from tests.billing.ledger.rig import held
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it
STATES = ["draft", "open", "paid", "void", "uncollectible"]


def tell(tenant, invoice, *states):
    with tenant_scope(tenant.id):
        for status in states:
            advance(invoice.id, News(status, clock.now()))


def kinds(tenant, invoice) -> list[str]:
    with tenant_scope(tenant.id):
        return sorted(view.kind.removeprefix("invoice.") for view in entries_of(invoice.id))


@pytest.mark.parametrize(
    ("told", "posted", "holds"),
    [
        (["draft"], [], {}),
        (["open"], ["finalised"], {"receivable": 1207, "revenue": -1207}),
        (["paid"], ["finalised", "paid"], {"payments": 1207, "revenue": -1207}),
        (["open", "open", "paid", "paid"], ["finalised", "paid"],
         {"payments": 1207, "revenue": -1207}),
        (["void"], ["finalised", "voided"], {}),
        (["uncollectible"], ["finalised", "written_off"], {"bad_debt": 1207, "revenue": -1207}),
        (["uncollectible", "paid"], ["finalised", "paid", "written_off"],
         {"payments": 1207, "revenue": -1207}),
        (["uncollectible", "void"], ["finalised", "voided", "written_off"], {}),
        (["paid", "void"], ["finalised", "paid"], {"payments": 1207, "revenue": -1207}),
    ],
)  # fmt: skip
def test_each_move_of_an_invoice_is_in_the_ledger(acme, prices, told, posted, holds):
    invoice = draft(acme, prices, [("input_tokens", 1000), ("requests", 200), ("requests", 7)])
    tell(acme, invoice, *told)
    assert kinds(acme, invoice) == posted
    found = held(acme.id)
    earned = {name: found.pop(name) for name in list(found) if name.startswith("revenue:")}
    assert found | ({"revenue": sum(earned.values())} if earned else {}) == holds
    assert earned in ({}, {"revenue:input_tokens": -1000, "revenue:requests": -207})


def test_a_closed_period_is_in_the_ledger_once_it_is_finalised_late_usage_too(acme, prices):
    ingest(used(acme, prices, utc(10, 5), tokens_in=1_000_000))  # 2.00 and 0.01
    close_period(acme.id, utc(11, 1))
    ingest(used(acme, prices, utc(10, 6), tokens_out=500_000), used(acme, prices, utc(11, 2)))
    november = close_period(acme.id, utc(11, 20))
    assert held(acme.id) == {}  # drafts
    tell(acme, november, "open")
    assert held(acme.id) == {
        "receivable": 302, "revenue:output_tokens": -300, "revenue:requests": -2,
    }  # fmt: skip


def test_a_meter_that_is_called_credit_is_revenue_and_no_credit(acme, prices):
    invoice = draft(acme, prices, [("credit", 1000), ("requests", 207)])
    tell(acme, invoice, "open")
    revenue = {"revenue:credit": -1000, "revenue:requests": -207}
    assert held(acme.id) == {"receivable": 1207} | revenue
    with tenant_scope(acme.id):
        line = invoice.lines.get(meter="credit")
        create_credit_note(
            invoice.id, reason="other", idempotency_key="a", lines=[LineAsked(line.id, 400)]
        )
    assert held(acme.id) == {"receivable": 807} | revenue | {"revenue:credit": -600}
    assert all(verdict.holds for verdict in audit())


def test_other_currencies_are_kept_apart(acme, prices):
    for currency, amount in (("USD", 1000), ("JPY", 500), ("KWD", 1234)):
        tell(acme, draft(acme, prices, [("requests", amount)], currency), "open")
    assert [held(acme.id, currency)["receivable"] for currency in ("USD", "JPY", "KWD")] == [
        1000, 500, 1234,
    ]  # fmt: skip


def test_what_is_rolled_back_is_not_in_the_ledger(acme, prices):
    invoice = draft(acme, prices, [("requests", 5)])
    with tenant_scope(acme.id):
        savepoint = transaction.savepoint()
        advance(invoice.id, News("paid", clock.now()))
        transaction.savepoint_rollback(savepoint)
    assert kinds(acme, invoice) == []
    assert held(acme.id) == {}


def test_an_invoice_that_cannot_be_posted_does_not_move(acme, prices, monkeypatch):
    invoice = draft(acme, prices, [("requests", 5)])

    def fail(_entry):
        raise RuntimeError("the ledger is away")

    monkeypatch.setattr("billing.invoicing.record.post_entry", fail)
    with pytest.raises(RuntimeError):
        tell(acme, invoice, "open")
    with tenant_scope(acme.id):
        assert Invoice.objects.get(id=invoice.id).status == "draft"


@committing
def test_invoices_that_move_at_once_are_each_posted_once(acme, prices):
    made = [draft(acme, prices, [("requests", 10**n)]) for n in range(4)]
    barrier, failed = Barrier(8), []

    def move(invoice):
        barrier.wait()
        try:
            tell(acme, invoice, "open")
            tell(acme, invoice, "paid")
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=move, args=(invoice,)) for invoice in made * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert held(acme.id) == {"payments": 1111, "revenue:requests": -1111}
    assert all(verdict.holds for verdict in audit())


lines = st.lists(
    st.tuples(st.sampled_from(["input_tokens", "requests"]), st.integers(-(10**9), 10**9)),
    max_size=4,
)
invoices = st.lists(lines, min_size=1, max_size=3)
news = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(STATES)), max_size=10)


def check_any_moves(acme, prices, bills, told):
    """In a transaction that is given up: each example begins with an empty ledger."""
    with transaction.atomic():
        made = [draft(acme, prices, bill) for bill in bills]
        for number, status in told:
            tell(acme, made[number % len(made)], status)
        with tenant_scope(acme.id):
            found = list(Invoice.objects.all())
        owed = dict.fromkeys(STATES, 0)
        for invoice in found:
            owed[invoice.status] += invoice.total_minor
        balances = held(acme.id)
        assert sum(balances.values()) == 0
        assert balances.get("receivable", 0) == owed["open"]
        assert balances.get("payments", 0) == owed["paid"]
        assert balances.get("bad_debt", 0) == owed["uncollectible"]
        assert [verdict for verdict in audit() if not verdict.holds] == []
        with transaction.get_connection().cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what a commit would check
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        transaction.set_rollback(True)


def test_any_moves_of_invoices_leave_a_balanced_ledger_and_receivable_is_what_is_open(acme, prices):
    @given(invoices, news)
    @settings(max_examples=8, suppress_health_check=list(HealthCheck))
    def moves(bills, told):
        check_any_moves(acme, prices, bills, told)

    moves()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_ledgers_of_any_moves_are_balanced(acme, prices):
    @given(invoices, news)
    @settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
    def moves(bills, told):
        check_any_moves(acme, prices, bills, told)

    moves()
