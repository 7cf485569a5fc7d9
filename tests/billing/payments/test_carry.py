"""Invoices below what Stripe can charge are not sent: the next one takes them along."""

import pytest

from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.carry import carry_if_too_small
from billing.payments.collect import collect
from billing.payments.models import CarriedInvoice, PaymentRun
from billing.payments.process import refresh
from billing.payments.stripe.amounts import MINIMUM_CHARGE_MINOR
from stripe_sandbox.balance import MINIMUM_CHARGE_MINOR as THEIRS
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.rig import Faulty, Killed, read

pytestmark = pytest.mark.django_db(transaction=True)


def sound() -> bool:
    return not any(each.findings for each in audit())


@pytest.fixture
def small(billed, organisation):
    """An invoice of one cent."""
    return lambda: billed(organisation, tokens_out=0)


def test_what_can_be_charged_is_what_the_sandbox_charges():
    assert {currency.lower(): least for currency, least in MINIMUM_CHARGE_MINOR.items()} == THEIRS


def test_a_small_invoice_is_open_and_asks_nothing_of_stripe(organisation, small, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = small()
    for _ in range(2):
        outcome = collect(organisation.id, invoice.id, stripe)
        assert (outcome.status, outcome.collection_state) == ("open", "carried")
        assert outcome.note == (
            "Less than 0.50 USD cannot be charged: collected with the next invoice."
        )
    assert there.invoices(organisation) == []
    assert read(organisation.id, invoice).number == "ACME-000001"


def test_the_next_invoice_takes_it_along_and_both_are_paid(
    organisation, billed, small, stripe, there
):
    attach_test_card(organisation.id, stripe)
    first, second = small(), small()
    for invoice in (first, second):
        collect(organisation.id, invoice.id, stripe)
    large = billed(organisation)
    assert collect(organisation.id, large.id, stripe).status == "paid"
    [theirs] = there.invoices(organisation)
    assert (theirs.status, theirs.total, theirs.amount_paid) == ("paid", 303, 303)
    assert (theirs.starting_balance, theirs.ending_balance) == (0, 0)
    told = [line for line in there.lines(theirs.id) if "too small" in line[2]]
    assert [line[:2] for line in told] == [(str(first.id), 1), (str(second.id), 1)]
    for invoice in (first, second, large):
        now = read(organisation.id, invoice)
        assert (now.status, now.collection_state, now.collection_note) == ("paid", "done", "")
        assert now.paid_minor == now.total_minor
    books = booked(organisation)
    assert books["payments"] == 303
    assert "receivable" not in books
    assert "customer_balance" not in books
    assert sound()


def test_small_ones_that_are_enough_together_are_charged(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    thirty = [billed(organisation, tokens_out=48_334) for _ in range(2)]  # 0.30 each
    assert [invoice.total_minor for invoice in thirty] == [30, 30]
    assert collect(organisation.id, thirty[0].id, stripe).collection_state == "carried"
    assert collect(organisation.id, thirty[1].id, stripe).status == "paid"
    assert [theirs.total for theirs in there.invoices(organisation)] == [60]
    assert read(organisation.id, thirty[0]).status == "paid"


def test_a_run_that_is_voided_leaves_them_to_the_next(organisation, billed, small, stripe, there):
    first, voided, next_one = small(), billed(organisation), billed(organisation)
    collect(organisation.id, first.id, stripe)
    collect(organisation.id, voided.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.void_invoice(theirs.id)
    refresh(organisation.id, voided.id, theirs.id, stripe)
    assert read(organisation.id, voided).status == "void"
    assert read(organisation.id, first).status == "open"
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, next_one.id, stripe)
    assert read(organisation.id, next_one).status == "paid"
    assert read(organisation.id, first).status == "paid"
    assert sorted(each.total for each in there.invoices(organisation)) == [302, 302]
    assert sound()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [5, *(pytest.param(at, marks=pytest.mark.long) for at in (1, 9))])
def test_killed_at_any_call_both_are_paid_once(
    organisation, billed, small, stripe, there, at, after
):
    attach_test_card(organisation.id, stripe)
    first, large = small(), billed(organisation)
    collect(organisation.id, first.id, stripe)
    dying = Faulty(stripe, at, after=after, fail=Killed)
    try:
        collect(organisation.id, large.id, dying)
    except Killed:
        with tenant_scope(organisation.id):
            PaymentRun.objects.update(lease_until=None, lease_token=None)
    tasks.sweep()
    [theirs] = there.invoices(organisation)
    assert (theirs.total, theirs.amount_paid) == (302, 302)
    assert [read(organisation.id, each).status for each in (first, large)] == ["paid", "paid"]


def test_two_that_are_collected_at_once_do_not_both_take_it(organisation, billed, small, stripe):
    """The row is locked until the run that takes it along is there."""
    first, second, third = small(), billed(organisation), billed(organisation)
    collect(organisation.id, first.id, stripe)
    for invoice in (second, third):
        collect(organisation.id, invoice.id, stripe)
    with tenant_scope(organisation.id):
        [row] = CarriedInvoice.objects.all()
        assert (row.run.invoice_id, row.amount_minor) == (second.id, 1)


def test_what_becomes_too_small_later_is_not_added_to_a_run_that_was_made_before(
    organisation, billed, small, stripe, there
):
    """Its lines are frozen: it is charged again with the ones it has, and the other one waits."""
    large = billed(organisation)
    collect(organisation.id, large.id, stripe)  # no card: open
    later = small()
    collect(organisation.id, later.id, stripe)
    attach_test_card(organisation.id, stripe)
    assert collect(organisation.id, large.id, stripe, retry=True).status == "paid"
    assert [theirs.total for theirs in there.invoices(organisation)] == [301]
    assert read(organisation.id, later).collection_state == "carried"


def test_an_invoice_whose_run_has_begun_is_not_carried(organisation, small, stripe):
    invoice = small()
    with tenant_scope(organisation.id):
        PaymentRun.objects.create(
            tenant_id=organisation.id, invoice=invoice, provider="stripe", customer_id="c",
            digest="d",
        )  # fmt: skip
        assert not carry_if_too_small(Invoice.objects.get(id=invoice.id), stripe)
