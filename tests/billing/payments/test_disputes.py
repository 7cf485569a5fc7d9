"""A disputed payment: gone, back again or lost, once each, and the ledger balanced at each step."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, ProgrammingError, connections

from billing.payments import disputes, inbox, refunds, tasks
from billing.payments.accounts import attach_test_card
from billing.payments.catch_up import catch_up
from billing.payments.collect import collect
from billing.payments.disputes import mirror_dispute
from billing.payments.models import Dispute, DisputeMovement, PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.provider import ProviderRefused
from billing.payments.reconcile.clearing import holdings
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope, tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.disputing import FEE, Bank, dispute_of, moved_by
from tests.billing.payments.rig import Killed, customer_of
from tests.billing.payments.test_credit_notes import assert_sound, credited, paid

pytestmark = pytest.mark.django_db(transaction=True)

# An invoice of 3.01 is paid. Then: the act, and what these accounts hold after it.
LIVES = {
    "won": """
        dispute                  payments -1500, disputed 301, dispute_fees 1500
        under_review             payments -1500, disputed 301, dispute_fees 1500
        won                      payments -1199, dispute_fees 1500
    """,
    "lost in part, and won on appeal": """
        dispute 100              payments -1299, disputed 100, dispute_fees 1500
        lost                     payments -1299, dispute_losses 100, dispute_fees 1500
        won                      payments -1199, dispute_fees 1500
    """,
    "an inquiry that becomes a dispute": """
        inquiry                  payments 301
        warning_under_review     payments 301
        needs_response           payments -1500, disputed 301, dispute_fees 1500
        lost                     payments -1500, dispute_losses 301, dispute_fees 1500
    """,
    "money later than the word": """
        dispute later            payments 301
        withdraw                 payments -1500, disputed 301, dispute_fees 1500
        won later                payments -1500, disputed 301, dispute_fees 1500
        reinstate fee -1500      payments 301
    """,
    "part of the money back, though lost": """
        dispute                  payments -1500, disputed 301, dispute_fees 1500
        lost                     payments -1500, dispute_losses 301, dispute_fees 1500
        reinstate 100            payments -1400, dispute_losses 201, dispute_fees 1500
    """,
}
ACCOUNTS = ("payments", "disputed", "dispute_losses", "dispute_fees", "refunds", "customer_balance")


def books(tenant) -> str:
    held = booked(tenant)
    return ", ".join(f"{name} {held[name]}" for name in ACCOUNTS if name in held)


def act(bank: Bank, charge_id: str, their_id: str, told: str) -> str:
    name, *rest = told.split()
    numbers = [int(each) for each in rest if each.lstrip("-").isdigit()]
    how: dict[str, object] = {"moves_money": False} if "later" in rest else {}
    if name in ("dispute", "inquiry"):
        how |= {"amount": numbers[0]} if numbers else {}
        return bank.disputes(charge_id, inquiry=name == "inquiry", **how)
    if name in ("withdraw", "reinstate"):
        how = {"fee" if "fee" in rest else "amount": numbers[0]} if numbers else {}
        bank.moves(their_id, name, **how)
    else:
        bank.decides(their_id, name, **how)
    return their_id


FAST = ("lost in part, and won on appeal",)


@pytest.mark.parametrize(
    "life",
    [life if life in FAST else pytest.param(life, marks=pytest.mark.long) for life in LIVES],
)
def test_the_ledger_has_it_at_each_step(organisation, billed, stripe, there, life):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe)
    charge_id, their_id = bank.charge(organisation, invoice), ""
    for line in LIVES[life].strip().splitlines():
        told, wanted = (part.strip() for part in line.strip().split("  ", 1))
        their_id = act(bank, charge_id, their_id, told)
        before = moved_by(their_id)
        assert "as known" in mirror_dispute(their_id, stripe)
        assert moved_by(their_id) == before
        assert books(organisation) == wanted, told
    assert_sound()
    assert dispute_of(their_id).invoice_id == invoice.id
    with tenant_scope(organisation.id):
        invoice.refresh_from_db()
    assert invoice.status == "paid"


def test_two_disputes_of_one_charge_after_a_refund(organisation, billed, stripe, there):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe)
    charge_id = bank.charge(organisation, invoice)
    with tenant_scope(organisation.id):
        refunds.ask(invoice.id, amount_minor=51, reason="sorry", idempotency_key="before")
    tasks.sweep()
    first = bank.disputes(charge_id, amount=100)
    second = bank.disputes(charge_id)
    assert dispute_of(second).amount_minor == 150
    with pytest.raises(AssertionError, match="is left to be disputed"):
        bank.disputes(charge_id, amount=1)
    with tenant_scope(organisation.id), pytest.raises(CallerError) as refused:
        refunds.ask(invoice.id, amount_minor=1, reason="sorry", idempotency_key="after")
    assert refused.value.code == "payment_disputed"
    bank.decides(first, "won")
    bank.decides(second, "lost")
    assert books(organisation) == f"payments {100 - 2 * FEE}, dispute_losses 150, dispute_fees 3000"
    assert bank.gone_minor(organisation) == 150 + 2 * FEE
    assert_sound()


def test_what_was_owed_to_the_customer_anyway_is_no_loss(organisation, billed, stripe, there):
    # It pays before it is told of a note of 50, and is promised 100 more when it disputes all.
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    credited(organisation, invoice, 50)
    with tenant_scope(organisation.id):
        their_id = str(PaymentRun.objects.get().provider_invoice_id)
    card = attach_test_card(organisation.id, stripe)
    there.client.v1.invoices.pay(their_id, {"payment_method": card})
    bank = Bank(there, stripe)
    dispute = bank.disputes(bank.charge(organisation, invoice))
    credited(organisation, invoice, 100, "refund")
    tasks.sweep()
    assert booked(organisation)["customer_balance"] == -50
    assert booked(organisation)["refunds"] == -100
    bank.decides(dispute, "lost")
    assert books(organisation) == "payments -1500, dispute_losses 151, dispute_fees 1500"
    assert [each for each in holdings() if each.rest_minor] == []
    bank.decides(dispute, "won")
    assert [each for each in holdings() if each.rest_minor] == []
    assert books(organisation) == (
        "payments -1199, dispute_fees 1500, refunds -100, customer_balance -50"
    )
    assert_sound()


def test_events_in_any_order_doubled_late_or_never_sent_end_in_one_state(
    organisation, billed, stripe, there
):
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe, reads=False)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    happened: list[str] = []

    def deliver() -> None:
        found = there.client.v1.events.list({"limit": 100}).data
        told = [each.to_dict(for_json=True) for each in found]
        about = [each for each in told if each["data"]["object"].get("id") == their_id]
        happened[:] = [each["id"] for each in about]
        for each in chance.choices(about, k=2):
            with system_scope("test"):
                inbox.take_in(each["id"], each["type"], each, "delivered")
                WebhookEvent.objects.filter(event_id=each["id"]).update(processed_at=None)
            assert process_event(each["id"], stripe).startswith("dispute")

    for move in ("under_review", "lost", "won"):
        if chance.random() < 0.7:
            deliver()
        bank.decides(their_id, move)
    deliver()

    class Listing:
        """Their list, without what other tests did there."""

        name = "stripe"

        def events_between(self, *window):
            found = stripe.events_between(*window)
            return [each for each in found if each.payload["data"]["object"]["id"] == their_id]

    catch_up(Listing())  # type: ignore[arg-type]  # whatever was never sent
    tasks.sweep()
    with system_scope("test"):
        stored = WebhookEvent.objects.filter(event_id__in=happened, processed_at__isnull=False)
        assert stored.count() == len(happened) == 6
    assert dispute_of(their_id).status == "won"
    assert books(organisation) == "payments -1199, dispute_fees 1500"
    assert_sound()


@pytest.mark.long
def test_what_a_slow_worker_read_does_not_turn_it_back(organisation, billed, stripe, there):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    old = stripe.dispute(their_id)
    bank.decides(their_id, "won")

    class Slow:
        name = "stripe"

        def dispute(self, _their_id):
            return old

    mirror_dispute(their_id, Slow())  # type: ignore[arg-type]
    assert dispute_of(their_id).status == "won"
    assert books(organisation) == "payments -1199, dispute_fees 1500"
    assert_sound()


def test_a_worker_that_dies_leaves_it_to_the_next(organisation, billed, stripe, there, monkeypatch):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe, reads=False)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    calls: list[int] = []

    def killed(entry):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return post(entry)

    post = disputes.post_entry
    monkeypatch.setattr(disputes, "post_entry", killed)
    with pytest.raises(Killed):
        mirror_dispute(their_id, stripe)
    assert moved_by(their_id) == []  # all of it or nothing
    assert books(organisation) == "payments 301"
    with clock.frozen(clock.now() + timedelta(hours=7)):
        tasks.sweep()
    assert sorted(moved_by(their_id)) == [("fee_charged", FEE), ("withdrawn", 301)]
    assert_sound()


def test_a_dispute_of_a_payment_that_is_not_known_is_parked_until_it_is(
    organisation, billed, stripe, there, caplog
):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe)
    charge_id = bank.charge(organisation, invoice)
    with tenant_scope(organisation.id):
        runs = PaymentRun.objects.filter(invoice_id=invoice.id)
        their_invoice = runs.get().provider_invoice_id
        runs.update(provider_invoice_id="in_not_it")
    their_id = bank.disputes(charge_id)
    assert "was opened" in caplog.text
    parked = dispute_of(their_id)
    assert (parked.tenant_id, moved_by(their_id)) == (None, [])
    assert parked.note == f"Invoice {their_invoice} there is none of ours."
    with tenant_scope(organisation.id):  # nobody's: no tenant sees it
        assert not Dispute.objects.exists()
        runs.update(provider_invoice_id=their_invoice)
    bank.decides(their_id, "lost")
    known = dispute_of(their_id)
    assert (known.tenant_id, known.invoice_id, known.note) == (organisation.id, invoice.id, "")
    assert books(organisation) == "payments -1500, dispute_losses 301, dispute_fees 1500"
    assert_sound()


def test_a_payment_made_without_us_is_parked_and_says_whose_customer_paid(
    organisation, stripe, there
):
    attach_test_card(organisation.id, stripe)
    customer = customer_of(organisation.id)
    method = stripe.customer(customer).default_payment_method
    intent = there.client.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "customer": customer, "payment_method": method,
         "confirm": True, "off_session": True}
    )  # fmt: skip
    bank = Bank(there, stripe)
    their_id = bank.disputes(str(intent.latest_charge))
    assert dispute_of(their_id).note == f"Payment {intent.id}, of acme, is none of ours."
    with pytest.raises(ProviderRefused):
        stripe.dispute("du_unknown")
    assert mirror_dispute("du_unknown", stripe) == "cannot be read: missing"
    odd = replace(stripe.dispute(their_id), status="unheard_of")

    class Odd:
        name = "stripe"

        def dispute(self, _their_id):
            return odd

    assert "unheard_of is not known" in mirror_dispute("x", Odd())  # type: ignore[arg-type]


@pytest.mark.long
def test_two_workers_at_once_write_each_movement_once(organisation, billed, stripe, there):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe, reads=False)
    their_id = bank.disputes(bank.charge(organisation, invoice))

    def work(_n: int) -> str:
        try:
            return mirror_dispute(their_id, stripe)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(work, range(4)))
    assert sorted(said)[0].startswith("dispute needs_response")
    assert moved_by(their_id) == [("withdrawn", 301), ("fee_charged", FEE)]
    assert_sound()


def test_postgresql_holds_what_a_dispute_is(organisation, onboard, billed, stripe, there):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    bank.decides(their_id, "lost")
    other = onboard("other")
    for change in (
        {"status": "under_review", "closed_at": None},
        {"status": "won", "closed_at": None},
        {"reason": "duplicate"},
        {"tenant_id": other.id},
        {"tenant_id": None, "invoice_id": None, "note": "nobody's"},
        {"amount_minor": 0},
    ):
        with pytest.raises(IntegrityError), system_scope("test"):
            Dispute.objects.filter(provider_dispute_id=their_id).update(**change)
    with pytest.raises(ProgrammingError), system_scope("test"):
        DisputeMovement.objects.update(amount_minor=1)
    dispute = dispute_of(their_id)
    for kind, amount, more in (
        ("withdrawn", 1, {}),  # by no transaction
        ("lost", 0, {}),
        ("lost", 1, {"owed_minor": 2}),
        ("fee_charged", 2, {"owed_minor": 1, "provider_transaction_id": "txn_1"}),
    ):
        with pytest.raises(IntegrityError), tenant_scope(organisation.id):
            DisputeMovement.objects.create(
                tenant_id=organisation.id, dispute=dispute, kind=kind, currency="USD",
                amount_minor=amount, at=clock.now(), **more,
            )  # fmt: skip
    with pytest.raises(IntegrityError), tenant_scope(other.id):
        DisputeMovement.objects.create(
            tenant_id=other.id, dispute=dispute, kind="lost", currency="USD", amount_minor=1,
            at=clock.now(),
        )  # fmt: skip
