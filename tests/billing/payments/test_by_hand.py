"""Invoices that the provider never hears of, and those that it only sends."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from random import Random, randrange
from threading import Barrier, Thread
from uuid import UUID

import pytest
from django.core import mail
from django.db import IntegrityError, ProgrammingError, connections, transaction

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.record import due_minor
from billing.ledger.audit import audit
from billing.payments import tasks, withdraw
from billing.payments.accounts import attach_test_card
from billing.payments.by_hand import (
    Recorded,
    left_minor,
    record_payment,
    recorded_minor,
    take_back,
)
from billing.payments.collect import collect
from billing.payments.dun import dun
from billing.payments.dunning_policy import SHIPPED, set_policy
from billing.payments.models import BillingAccount, DunningStep, RecordedPayment
from billing.payments.owed import owed, printed_to_pay
from billing.payments.provider import PaymentProvider, ProviderNotConfigured
from billing.payments.reconcile.clearing import holdings
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


def taken(invoice: Invoice, payment_id: UUID) -> Recorded:
    with tenant_scope(invoice.tenant_id):
        return take_back(invoice.id, payment_id, reason="it bounced", by="test")


def noted(invoice: Invoice, amount_minor: int, key: str) -> None:
    with tenant_scope(invoice.tenant_id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor")[0]
        asked = [LineAsked(line.id, amount_minor=amount_minor)]
        create_credit_note(invoice.id, reason="goodwill", idempotency_key=key, lines=asked)


def after(days: int, act: Callable[[], object]) -> None:
    with clock.frozen(clock.now() + timedelta(days=days, hours=1)):
        act()


def earned(tenant) -> dict[str, int]:
    """The accounts of revenue, which payments leave as they are."""
    found = held(tenant.id).items()
    return {name: minor for name, minor in found if name.startswith("revenue:")}


def agrees(invoice: Invoice) -> None:
    """What is owed, arrived and too much by the ledger is what the invoice says."""
    ours = read(invoice.tenant_id, invoice)
    with tenant_scope(invoice.tenant_id):
        arrived = recorded_minor(invoice.id)
        due, left = due_minor(ours), left_minor(ours)
    balances = held(invoice.tenant_id)
    lost = balances.get("bad_debt", 0)
    over = -balances.get("customer_balance", 0)
    assert balances.get("payments", 0) == arrived
    assert balances.get("receivable", 0) + lost == due + over - arrived
    if ours.status == "paid":
        assert (ours.paid_minor, over, left) == (arrived, arrived - due, 0)
    else:
        assert (over, left) == (0, max(0, due - arrived))
        assert bool(lost) == (ours.status == "uncollectible")


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
    assert [each for each in holdings() if each.rest_minor] == []
    again = paid(issued, 100, " wire  1 ")
    assert (again.id, again.left_minor, again.is_new) == (first.id, 201, False)
    with tenant_scope(organisation.id):
        assert printed_to_pay(issued.id) != unpaid
    assert paid(issued, 201, "wire 2").left_minor == 0
    ours = read(organisation.id, issued)
    assert (ours.status, ours.collection_state, ours.paid_minor) == ("paid", "done", 301)
    assert [each for each in holdings() if each.rest_minor] == []
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


def withdrawn(invoice: Invoice, status: str) -> str:
    with tenant_scope(invoice.tenant_id):
        return withdraw.ask(invoice.id, status, "test").status


@pytest.mark.parametrize("status", [withdraw.VOID, withdraw.UNCOLLECTIBLE])
def test_one_of_which_a_part_arrived_is_neither_void_nor_written_off(organisation, issued, status):
    part = paid(issued, 100, "wire")
    with pytest.raises(CallerError) as refused:
        withdrawn(issued, status)
    assert (refused.value.code, refused.value.message[:8]) == ("partly_paid", "1.00 USD")
    taken(issued, part.id)
    assert withdrawn(issued, status) == status
    assert held(organisation.id).get("receivable", 0) == 0
    assert all(verdict.holds for verdict in audit())


def test_a_policy_gives_up_what_nobody_paid_and_keeps_what_was_paid_in_part(organisation, issued):
    with tenant_scope(organisation.id):
        own = SHIPPED.document | {"end": "mark_uncollectible", "end_day": 20}
        set_policy(own, by="test")
    part = paid(issued, 100, "wire")
    for day in (30, 45, 51, 52):
        after(day, lambda: dun(no_provider))
    assert read(organisation.id, issued).status == "open"
    with tenant_scope(organisation.id):
        assert "kept open: 1.00 USD" in DunningStep.objects.get(kind="end").note
    taken(issued, part.id)
    assert withdrawn(issued, withdraw.UNCOLLECTIBLE) == "uncollectible"
    assert standing(organisation.id) == "suspended"


def test_what_was_written_off_is_recovered_in_parts_and_lost_again(organisation, issued):
    assert withdrawn(issued, withdraw.UNCOLLECTIBLE) == "uncollectible"
    paid(issued, 100, "wire 1")
    assert held(organisation.id) | {"revenue": 0} == {
        "payments": 100, "bad_debt": 201, "revenue": 0, **earned(organisation),
    }  # fmt: skip
    rest = paid(issued, 201, "wire 2")
    assert (read(organisation.id, issued).status, rest.left_minor) == ("paid", 0)
    assert "bad_debt" not in held(organisation.id)
    taken(issued, rest.id)
    ours = read(organisation.id, issued)
    assert (ours.status, held(organisation.id)["bad_debt"]) == ("uncollectible", 201)
    assert "receivable" not in held(organisation.id)
    assert all(verdict.holds for verdict in audit())


def test_a_payment_that_was_none_is_taken_back_once_and_what_it_had_ended_goes_on(
    organisation, issued
):
    for day in (30, 44):
        after(day, lambda: dun(no_provider))
    assert standing(organisation.id) == "suspended"
    wire = paid(issued, 301, "wire")
    assert standing(organisation.id) == "active"
    first, again = (taken(issued, wire.id) for _ in range(2))
    assert (first.id, first.is_new, again.is_new, first.left_minor) == (again.id, True, False, 301)
    ours = read(organisation.id, issued)
    assert (ours.status, ours.collection_state) == ("open", "awaiting_payment")
    assert (ours.paid_at, ours.paid_minor, standing(organisation.id)) == (None, None, "suspended")
    assert held(organisation.id) == {"receivable": 301, **earned(organisation)}
    with pytest.raises(CallerError) as refused:
        paid(issued, 301, "wire")
    assert refused.value.code == "payment_taken_back"
    paid(issued, 301, "wire, again")
    assert (read(organisation.id, issued).status, standing(organisation.id)) == ("paid", "active")
    assert all(verdict.holds for verdict in audit())


def test_one_of_two_payments_that_is_taken_back_leaves_what_the_other_pays(organisation, issued):
    first, second = paid(issued, 250, "one"), paid(issued, 250, "two")
    assert held(organisation.id)["customer_balance"] == -199
    twice = paid(issued, 250, "two, by mistake")
    assert read(organisation.id, issued).paid_minor == 750
    taken(issued, twice.id)
    ours = read(organisation.id, issued)
    assert (ours.status, ours.paid_minor) == ("paid", 500)
    assert "1.99 USD more was paid" in ours.collection_note
    left = taken(issued, first.id).left_minor
    assert (left, held(organisation.id)["receivable"]) == (51, 51)
    assert "customer_balance" not in held(organisation.id)
    with tenant_scope(organisation.id), pytest.raises(CallerError):
        take_back(issued.id, issued.id, reason="no such", by="test")
    with tenant_scope(organisation.id), pytest.raises(CallerError):
        take_back(issued.id, second.id, reason=" ", by="test")
    assert all(verdict.holds for verdict in audit())


def test_however_payments_notes_and_ends_follow_books_and_invoice_agree(organisation, issued):
    seed = randrange(2**32)
    print(f"seed {seed}")
    chance = Random(seed)
    for step in range(7):
        ours = read(organisation.id, issued)
        with tenant_scope(organisation.id):
            live = RecordedPayment.objects.filter(amount_minor__gt=0, taken_back_by=None)
            known = list(live.values_list("id", flat=True))
        act = chance.choice(["pay", "pay", "take", "note", "off", "sweep"])
        with suppress(CallerError):
            if act == "pay":
                paid(issued, chance.randrange(1, 250), f"wire {step}")
            elif act == "take" and known:
                taken(issued, chance.choice(known))
            elif act == "note" and ours.status == "open":
                noted(issued, chance.randrange(1, 60), f"note {step}")
            elif act == "off" and chance.random() < 0.3:
                withdrawn(issued, withdraw.UNCOLLECTIBLE)
        if act == "sweep":
            tasks.sweep()
        agrees(issued)
    tasks.sweep()
    agrees(issued)
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
