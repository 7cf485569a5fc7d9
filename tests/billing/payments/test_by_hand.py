"""Invoices that the provider never hears of, and those that it only sends."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.core import mail
from django.db import IntegrityError, ProgrammingError, connections, transaction

from billing.invoicing.credit import create_credit_note
from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.by_hand import Recorded, left_minor, record_payment
from billing.payments.collect import collect
from billing.payments.dun import dun
from billing.payments.give_up import give_up
from billing.payments.models import BillingAccount, DunningStep, RecordedPayment
from billing.payments.owed import owed, printed_to_pay
from billing.payments.provider import PaymentProvider, ProviderNotConfigured
from billing.payments.terms import set_terms, terms
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import read, standing, steps_of

pytestmark = pytest.mark.django_db(transaction=True)

BANK = "Example Bank\nIBAN DE02 1203 0000 0000 2020 51"


def no_provider() -> PaymentProvider:
    raise ProviderNotConfigured("none", "There is no provider here.")


@pytest.fixture
def issued(organisation, billed, settings) -> Invoice:
    """3.01 to be transferred, where no provider is configured."""
    settings.STRIPE_API_KEY, settings.SELLER_BANK_DETAILS = "", BANK
    with tenant_scope(organisation.id):
        set_terms("manual", 30, by="test")
    invoice = billed(organisation)
    tasks.sweep()
    return read(organisation.id, invoice)


def paid(invoice: Invoice, amount_minor: int, reference: str) -> Recorded:
    with tenant_scope(invoice.tenant_id):
        return record_payment(
            invoice.id,
            amount_minor=amount_minor,
            paid_on=clock.now().date(),
            reference=reference,
            by="test",
        )


def test_a_manual_invoice_is_issued_without_a_provider_and_paid_in_parts(organisation, issued):
    assert (issued.status, issued.collection_state) == ("open", "awaiting_payment")
    assert issued.number == "ACME-000001"
    with tenant_scope(organisation.id):
        assert not BillingAccount.objects.exists()
        unpaid = printed_to_pay(issued.id)
    first = paid(issued, 100, "wire 1")
    assert (first.left_minor, first.is_new) == (201, True)
    balances = held(organisation.id)
    assert (balances["payments"], balances["receivable"]) == (100, 201)
    again = paid(issued, 100, " wire  1 ")
    assert (again.id, again.left_minor, again.is_new) == (first.id, 201, False)
    with tenant_scope(organisation.id):
        assert printed_to_pay(issued.id) != unpaid
    assert paid(issued, 201, "wire 2").left_minor == 0
    ours = read(organisation.id, issued)
    assert (ours.status, ours.collection_state, ours.paid_minor) == ("paid", "done", 301)
    balances = held(organisation.id)
    assert (balances["payments"], balances.get("receivable", 0)) == (301, 0)
    assert all(verdict.holds for verdict in audit())


def test_what_is_paid_beyond_what_was_due_is_the_customers_balance(organisation, issued):
    assert paid(issued, 500, "wire").left_minor == 0
    balances = held(organisation.id)
    assert (balances["payments"], balances["customer_balance"]) == (500, -199)
    assert all(verdict.holds for verdict in audit())


def test_a_payment_counts_once_for_its_reference_whoever_sends_it(organisation, issued):
    barrier, made = Barrier(4), list[bool]()

    def record() -> None:
        barrier.wait(10)
        made.append(paid(issued, 100, "wire").is_new)
        connections.close_all()

    threads = [Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == [False, False, False, True]
    assert held(organisation.id)["payments"] == 100
    with pytest.raises(CallerError) as taken:
        paid(issued, 101, "wire")
    assert taken.value.code == "payment_reference_taken"


@pytest.mark.parametrize(
    ("amount_minor", "days", "reference", "field"),
    [
        (0, 0, "wire", "amount"),
        (-1, 0, "wire", "amount"),
        (10**16, 0, "wire", "amount"),
        (100, 2, "wire", "paid_on"),
        (100, 0, "  ", "reference"),
        (100, 0, "x" * 101, "reference"),
        (100, 0, "a\x00b", "reference"),
    ],
)
def test_what_is_no_payment_is_refused(organisation, issued, amount_minor, days, reference, field):
    with tenant_scope(organisation.id), pytest.raises(CallerError) as refused:
        record_payment(
            issued.id,
            amount_minor=amount_minor,
            paid_on=(clock.now() + timedelta(days=days)).date(),
            reference=reference,
            by="test",
        )
    assert (refused.value.code, refused.value.field) == ("payment_invalid", field)
    with tenant_scope(organisation.id):
        assert not RecordedPayment.objects.exists()


def test_a_manual_invoice_is_overdue_on_its_day_and_restored_when_it_is_covered(
    organisation, issued
):
    for day in (29, 30, 33, 37, 44):
        with clock.frozen(clock.now() + timedelta(days=day, hours=1)):
            dun(no_provider)
        assert standing(organisation.id) == {29: "active", 44: "suspended"}.get(day, "past_due")
    assert [len(sent.body.split("IBAN DE02")) for sent in mail.outbox] == [2, 2, 2, 2]
    with tenant_scope(organisation.id):
        kinds = list(DunningStep.objects.order_by("due_at", "kind").values_list("kind", flat=True))
        [one] = owed()
    assert kinds == ["mail", "mail", "mail", "mail", "suspend"]
    assert (one.left_minor, one.is_by_hand) == (301, True)
    paid(issued, 300, "wire 1")
    assert standing(organisation.id) == "suspended"
    paid(issued, 1, "wire 2")
    assert standing(organisation.id) == "active"


def test_one_that_a_credit_note_covers_is_settled_by_the_sweep(organisation, issued):
    paid(issued, 100, "wire")
    with clock.frozen(clock.now() + timedelta(days=31)):
        dun(no_provider)
        with tenant_scope(organisation.id):
            create_credit_note(
                issued.id, reason="goodwill", memo="", effect="lowers_due",
                idempotency_key="all", lines=None,
            )  # fmt: skip
        dun(no_provider)
    ours = read(organisation.id, issued)
    assert (ours.status, standing(organisation.id)) == ("paid", "active")
    assert held(organisation.id).get("customer_balance") == -100
    assert all(verdict.holds for verdict in audit())


def test_one_of_which_a_part_was_paid_is_not_given_up(organisation, issued):
    paid(issued, 100, "wire")
    assert give_up(organisation.id, issued.id, no_provider) == "kept open: a part of it was paid"
    assert read(organisation.id, issued).status == "open"


def test_one_that_is_given_up_may_still_be_paid(organisation, issued):
    assert give_up(organisation.id, issued.id, no_provider) == "uncollectible"
    assert held(organisation.id)["bad_debt"] == 301
    paid(issued, 301, "wire")
    balances = held(organisation.id)
    assert (balances["payments"], balances.get("bad_debt", 0)) == (301, 0)
    assert balances.get("receivable", 0) == 0
    assert all(verdict.holds for verdict in audit())


def test_a_sent_invoice_is_due_online_sent_once_and_never_charged(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe)
    with tenant_scope(organisation.id):
        set_terms("send_invoice", 21, by="test")
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    with tenant_scope(organisation.id):
        set_terms("charge_automatically", 14, by="test")
    outcome = collect(organisation.id, invoice.id, stripe, retry=True)
    assert (outcome.status, outcome.collection_state) == ("open", "awaiting_payment")
    [theirs] = there.invoices(organisation)
    assert (theirs.collection_method, theirs.attempt_count) == ("send_invoice", 0)
    assert theirs.due_date - theirs.created == 21 * 86_400
    sent = there.client.v1.events.list({"type": "invoice.sent", "limit": 100}).data
    assert [event.data.object["id"] for event in sent].count(theirs.id) == 1
    kinds = [kind for kind, _, _ in steps_of(organisation.id)]
    assert kinds == ["customer", "draft", "lines", "verify", "finalise", "send"]
    with pytest.raises(CallerError) as refused:
        paid(invoice, 301, "wire")
    assert refused.value.code == "not_paid_by_hand"


@pytest.mark.parametrize(
    ("method", "days", "field"),
    [("cheque", 14, "method"), ("manual", -1, "days_until_due"), ("manual", 366, "days_until_due")],
)
def test_what_are_no_terms_is_refused(organisation, method, days, field):
    with tenant_scope(organisation.id):
        with pytest.raises(CallerError) as refused:
            set_terms(method, days, by="test")
        assert (refused.value.field, terms().method) == (field, "charge_automatically")


def test_the_database_keeps_a_payment_as_it_was_recorded(organisation, issued):
    paid(issued, 100, "wire")
    with tenant_scope(organisation.id):
        row = RecordedPayment.objects.get()
        assert left_minor(row.invoice) == 201
        for forbidden in (
            lambda: RecordedPayment.objects.update(amount_minor=1),
            lambda: RecordedPayment.objects.all()._raw_delete("default"),
        ):
            with pytest.raises(ProgrammingError), transaction.atomic():
                forbidden()
        row.pk, row._state.adding = None, True
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)
