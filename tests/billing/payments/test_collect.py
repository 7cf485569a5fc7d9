"""One invoice there for one of ours, the same cents, whatever happens in between."""

import json
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import IntegrityError, connections

from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice, InvoiceLine
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect, resume
from billing.payments.models import PaymentRun, PaymentStep
from billing.payments.provider import ProviderFault, ProviderUnavailable
from billing.payments.run import LEASE, NO_CARD
from billing.payments.stripe import Stripe
from billing.pricing.book import ModelPrices
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.invariant import InvariantBroken
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import (
    ADayLater,
    Faulty,
    Killed,
    customer_of,
    read,
    standing,
    steps_of,
)
from tests.billing.world import ingest, publish_prices, used
from tests.stripe_sandbox.rig import KEY

pytestmark = pytest.mark.django_db(transaction=True)

DECLINING = "pm_card_chargeCustomerFail"
STEPS = ["customer", "draft", "lines", "verify", "finalise", "pay", "mirror"]


def assert_collected(tenant, invoice, there):
    """Paid on both sides, once, line by line the same; and once in the ledger."""
    ours = read(tenant.id, invoice)
    assert (ours.status, ours.collection_state, ours.collection_note) == ("paid", "done", "")
    [theirs] = there.invoices(tenant)
    assert (theirs.status, theirs.total, theirs.subtotal) == (
        "paid",
        ours.total_minor,
        ours.total_minor,
    )
    assert (theirs.currency, theirs.amount_paid) == ("usd", ours.total_minor)
    with tenant_scope(tenant.id):
        lines = [
            (str(line.id), line.amount_minor, line.description)
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id)
        ]
    assert sorted(there.lines(theirs.id)) == sorted(lines)
    assert ours.hosted_url == theirs.hosted_invoice_url
    assert ours.paid_at is not None
    balances = held(tenant.id)
    assert (balances["payments"], balances.get("receivable", 0)) == (ours.total_minor, 0)
    assert all(verdict.holds for verdict in audit())
    return theirs


def test_an_invoice_is_brought_to_stripe_verified_finalised_and_paid(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state) == ("paid", "done")
    theirs = assert_collected(organisation, invoice, there)
    assert read(organisation.id, invoice).number == "ACME-000001"
    assert steps_of(organisation.id) == [(kind, 1, "done") for kind in STEPS]
    with tenant_scope(organisation.id):
        facts = json.loads(PaymentStep.objects.get(kind="mirror").parameters)
    assert facts["number"] == theirs.number
    assert (facts["total_minor"], facts["ending_balance_minor"]) == ("301", "0")
    page = theirs.hosted_invoice_url.removeprefix(there.sandbox.url)
    assert there.sandbox.request("GET", page).status == 200


def test_collecting_again_does_nothing(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    for _ in range(3):
        collect(organisation.id, invoice.id, stripe)
        resumed = Faulty(stripe, 1, after=False, fail=Killed)
        collect(organisation.id, invoice.id, resumed)
        assert resumed.calls == []
    assert_collected(organisation, invoice, there)


@pytest.mark.parametrize(
    ("fail", "after"),
    [
        ("killed", True),
        pytest.param("fault", True, marks=pytest.mark.long),
        pytest.param("killed", False, marks=pytest.mark.long),
        pytest.param("fault", False, marks=pytest.mark.long),
        pytest.param("away", False, marks=pytest.mark.long),
        pytest.param("away", True, marks=pytest.mark.long),
    ],
)
def test_a_failure_at_any_call_leaves_one_invoice_of_the_same_cents(
    onboard, billed, stripe, there, after, fail
):
    """Every call of a run in turn: the worker is killed, the answer is lost, or it is a 500."""
    failures: dict[str, Callable[[], BaseException]] = {
        "killed": Killed,
        "away": lambda: ProviderUnavailable("away", "no answer"),
        "fault": lambda: ProviderFault("fault", "HTTP 500"),
    }
    calls: set[str] = set()
    for at in range(1, 40):
        tenant = onboard(f"tenant-{at}")
        invoice = billed(tenant)
        faulty = Faulty(stripe, at, after=after, fail=failures[fail])
        with pytest.raises((Killed, WorldError)):
            attach_and_collect(tenant, invoice, faulty)
        if not faulty.has_failed:
            break
        calls.update(faulty.calls)
        attach_and_collect(tenant, invoice, stripe, finished=True)
        assert_collected(tenant, invoice, there)
    assert {"customer", "draft", "lines", "finalise", "pay", "invoice"} <= calls


def attach_and_collect(tenant, invoice, provider, finished=False):
    attach_test_card(tenant.id, provider)
    collect(tenant.id, invoice.id, provider)
    if not finished:
        raise Killed  # the fault came after the last call: the loop ends


def test_a_day_later_what_is_there_is_found_and_not_made_again(onboard, billed, stripe, there):
    """Keys are forgotten after 24 h: from then on we look before we send."""
    for at in range(1, 40):
        tenant = onboard(f"tenant-{at}")
        invoice = billed(tenant)
        faulty = Faulty(stripe, at, after=True, fail=Killed)
        with pytest.raises(Killed):
            attach_and_collect(tenant, invoice, faulty)
        if not faulty.has_failed:
            break
        later = ADayLater(KEY, there.sandbox.url)
        with clock.frozen(clock.now() + timedelta(hours=25)):
            attach_and_collect(tenant, invoice, later, finished=True)
        assert_collected(tenant, invoice, there)
    assert at > 8


def test_a_worker_that_died_holds_its_run_until_the_lease_ends(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, 3, after=True, fail=Killed))
    with tenant_scope(organisation.id):  # a SIGKILL would not have released it
        PaymentRun.objects.update(lease_token=organisation.id, lease_until=clock.now() + LEASE)
    assert collect(organisation.id, invoice.id, stripe).status == "finalising"
    with clock.frozen(clock.now() + LEASE + timedelta(seconds=1)):
        assert collect(organisation.id, invoice.id, stripe).status == "paid"
    assert_collected(organisation, invoice, there)


def test_a_worker_that_lost_its_lease_stops(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)

    class Slow(Stripe):
        """The other worker takes over while our draft is being made."""

        def send(self, kind, *rest):
            sent = super().send(kind, *rest)
            if kind == "draft":
                with tenant_scope(organisation.id):
                    PaymentRun.objects.update(lease_token=organisation.id)
            return sent

    outcome = collect(organisation.id, invoice.id, Slow(KEY, there.sandbox.url))
    assert outcome.status == "finalising"
    [theirs] = there.invoices(organisation)
    assert (theirs.status, theirs.total) == ("draft", 0)


def test_many_workers_at_once_make_one_customer_and_charge_once(
    organisation, billed, stripe, there
):
    invoices = [billed(organisation), billed(organisation)]
    attach_test_card(organisation.id, stripe)
    with tenant_scope(organisation.id):
        PaymentStep.objects.all()._raw_delete("default")
    work = [invoices[number % 2] for number in range(4)]
    barrier, failed = Barrier(len(work)), []

    def worker(invoice):
        barrier.wait()
        try:
            collect(organisation.id, invoice.id, Stripe(KEY, there.sandbox.url))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=worker, args=(invoice,)) for invoice in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = there.invoices(organisation)
    assert sorted(each.status for each in found) == ["paid", "paid"]
    assert sorted(str(read(organisation.id, each).number) for each in invoices) == [
        "ACME-000001",
        "ACME-000002",
    ]


def test_first_customers_made_at_once_are_one(onboard, stripe, there):
    tenant, barrier, failed = onboard("rushed"), Barrier(3), []

    def worker():
        barrier.wait()
        try:
            attach_test_card(tenant.id, Stripe(KEY, there.sandbox.url))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=worker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Stripe answers 409 to a key that is in use; that worker comes again.
    assert [failure for failure in failed if not isinstance(failure, WorldError)] == []
    attach_test_card(tenant.id, stripe)
    assert there.invoices(tenant) == []
    assert customer_of(tenant.id).startswith("cus_")


def test_a_foreign_line_on_the_draft_parks_the_invoice(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)

    class Tampered(Stripe):
        """Somebody adds a line by hand before we look."""

        def send(self, kind, target_id, *rest):
            sent = super().send(kind, target_id, *rest)
            if kind == "lines":
                there.client.v1.invoices.add_lines(
                    target_id, {"lines": [{"amount": 7, "description": "by hand"}]}
                )
            return sent

    outcome = collect(organisation.id, invoice.id, Tampered(KEY, there.sandbox.url))
    assert outcome.collection_state == "parked"
    assert "total: ours 301, theirs 308" in outcome.note
    assert "line (no uid) (by hand) is there and not ours" in outcome.note
    tasks.sweep()
    collect(organisation.id, invoice.id, stripe, retry=True)
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.number, ours.collection_state) == ("finalising", None, "parked")
    [theirs] = there.invoices(organisation)
    assert theirs.status == "draft"


def test_a_parked_invoice_is_resumed_once_the_difference_is_settled(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(CallerError, match="not parked"):
        resume(organisation.id, invoice.id)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, 3, after=True, fail=Killed))
    [theirs] = there.invoices(organisation)
    right = theirs.to_dict()["metadata"]["meterplane_digest"]
    change = there.client.v1.invoices.update
    change(theirs.id, {"metadata": {"meterplane_digest": "changed"}})
    assert "theirs changed" in collect(organisation.id, invoice.id, stripe).note
    resume(organisation.id, invoice.id)
    assert "theirs changed" in collect(organisation.id, invoice.id, stripe).note
    change(theirs.id, {"metadata": {"meterplane_digest": right}})
    resume(organisation.id, invoice.id)
    collect(organisation.id, invoice.id, stripe)
    assert_collected(organisation, invoice, there)
    assert ("verify", 3, "done") in steps_of(organisation.id)


def test_a_draft_deleted_at_stripe_parks_the_invoice(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, 3, after=True, fail=Killed))
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.delete(theirs.id)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert outcome.collection_state == "parked"
    assert "(missing)" in outcome.note


def test_a_declined_card_leaves_it_open_and_past_due_until_it_is_paid(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state) == ("open", "awaiting_payment")
    assert "card_declined" in outcome.note
    assert standing(organisation.id) == "past_due"
    tasks.sweep()
    collect(organisation.id, invoice.id, stripe)
    assert [step for step in steps_of(organisation.id) if step[0] == "pay"] == [
        ("pay", 1, "failed")
    ]
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, invoice.id, stripe, retry=True)
    assert_collected(organisation, invoice, there)
    assert standing(organisation.id) == "active"


def test_a_refusal_that_was_not_recorded_is_not_replayed_to_a_better_card(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)

    class Dying(Stripe):
        def send(self, kind, *rest):
            try:
                return super().send(kind, *rest)
            finally:
                if kind == "pay":
                    raise Killed

    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Dying(KEY, there.sandbox.url))
    assert collect(organisation.id, invoice.id, stripe).collection_state == "awaiting_payment"
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, invoice.id, stripe, retry=True)
    assert_collected(organisation, invoice, there)


def test_without_a_card_the_invoice_waits_for_the_customer(organisation, billed, stripe, there):
    invoice = billed(organisation)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state, outcome.note) == (
        "open",
        "awaiting_payment",
        NO_CARD,
    )
    for _ in range(3):
        tasks.sweep()
    assert "pay" not in [kind for kind, _, _ in steps_of(organisation.id)]
    assert standing(organisation.id) == "active"
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id, {"paid_out_of_band": True})
    # Its webhook is lost; the sweep looks again after a while.
    tasks.sweep()
    assert read(organisation.id, invoice).status == "open"
    with clock.frozen(clock.now() + timedelta(minutes=16)):
        tasks.sweep()
    assert read(organisation.id, invoice).status == "paid"


def test_what_waited_for_a_card_is_charged_once_there_is_one(organisation, billed, stripe, there):
    ours = billed(organisation)
    collect(organisation.id, ours.id, stripe)
    attach_test_card(organisation.id, stripe)
    tasks.sweep()
    assert read(organisation.id, ours).status == "paid"
    stripe_side = there.client.v1
    customer = customer_of(organisation.id)
    unset = {"invoice_settings": {"default_payment_method": ""}}
    card = stripe_side.customers.retrieve(customer).invoice_settings.default_payment_method
    stripe_side.customers.update(customer, unset)
    by_hand = billed(organisation)
    assert collect(organisation.id, by_hand.id, stripe).note == NO_CARD
    # The customer puts a card on file on a page of Stripe's; nobody calls us.
    stripe_side.customers.update(customer, {"invoice_settings": {"default_payment_method": card}})
    with clock.frozen(clock.now() + timedelta(minutes=16)):
        tasks.sweep()
    assert read(organisation.id, by_hand).status == "paid"


def test_one_paid_invoice_does_not_restore_who_owes_another(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe, DECLINING)
    first, second = billed(organisation), billed(organisation)
    for invoice in (first, second):
        collect(organisation.id, invoice.id, stripe)
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, first.id, stripe, retry=True)
    assert standing(organisation.id) == "past_due"
    collect(organisation.id, second.id, stripe, retry=True)
    assert standing(organisation.id) == "active"


def test_nothing_due_is_paid_without_the_provider(organisation, billed):
    invoice = billed(organisation, tokens_out=1, requests=0)  # 6 millionths
    assert invoice.total_minor == 0
    nobody = Faulty(None, 1, after=False, fail=Killed)
    outcome = collect(organisation.id, invoice.id, nobody)
    assert (outcome.status, outcome.collection_state) == ("paid", "done")
    assert read(organisation.id, invoice).number == "ACME-000001"


def test_more_lines_than_stripe_takes_arrive_as_sums_that_say_where_all_are(
    organisation, prices, stripe, there
):
    attach_test_card(organisation.id, stripe)
    models = [f"model-{number}" for number in range(251)]
    version = publish_prices(dict.fromkeys(models, ModelPrices(0, 0, 10**12)))
    at = clock.now() - timedelta(milliseconds=2)
    ingest(*[used(organisation, version, at, model) for model in models])
    invoice = close_period(organisation.id, clock.now())
    assert invoice is not None
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    [theirs] = there.invoices(organisation)
    assert (theirs.total, theirs.amount_paid) == (25_100, 25_100)
    assert [line[1:] for line in there.lines(theirs.id)] == [
        (25_100, f"usage, {at:%Y-%m}, requests: sum of 251 lines")
    ]
    assert f"/billing/{invoice.id}/?format=csv" in theirs.footer


def test_two_hundred_and_fifty_lines_arrive(organisation, prices, stripe, there):
    attach_test_card(organisation.id, stripe)
    models = [f"model-{number}" for number in range(250)]
    version = publish_prices(dict.fromkeys(models, ModelPrices(0, 0, 10**10)))
    at = clock.now() - timedelta(milliseconds=2)
    ingest(*[used(organisation, version, at, model) for model in models])
    invoice = close_period(organisation.id, clock.now())
    assert invoice is not None
    collect(organisation.id, invoice.id, stripe)
    assert assert_collected(organisation, invoice, there).total == 250


def test_the_sweep_collects_whatever_nobody_began(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    tasks.sweep()
    assert_collected(organisation, invoice, there)


def test_a_broken_invoice_does_not_hold_up_the_sweep(onboard, billed, stripe, there, monkeypatch):
    broken, sound = onboard("broken"), onboard("sound")
    invoices = [billed(broken), billed(sound)]
    attach_test_card(sound.id, stripe)
    collecting = tasks.collect.run

    def fails_for_one(tenant_id, invoice_id):
        if tenant_id == str(broken.id):
            raise InvariantBroken("this one only")
        collecting(tenant_id, invoice_id)

    monkeypatch.setattr(tasks, "collect", fails_for_one)
    tasks.sweep()
    assert read(broken.id, invoices[0]).status == "draft"
    assert_collected(sound, invoices[1], there)


def test_a_provider_that_is_away_is_tried_again_at_growing_distances(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    away = Faulty(stripe, 1, after=False, fail=lambda: ProviderUnavailable("away", "no answer"))
    with pytest.raises(ProviderUnavailable):
        collect(organisation.id, invoice.id, away)
    tasks.sweep()  # not its turn yet
    assert read(organisation.id, invoice).status == "finalising"
    with clock.frozen(clock.now() + timedelta(seconds=3)):
        tasks.sweep()
    assert_collected(organisation, invoice, there)


def test_a_provider_that_was_away_for_a_day_is_used_within_minutes_of_its_return(
    organisation, billed, stripe
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):  # so that there is a run
        collect(organisation.id, invoice.id, Faulty(stripe, 3, after=False, fail=Killed))
    with tenant_scope(organisation.id):
        PaymentRun.objects.update(attempts=100)
    away = Faulty(stripe, 1, after=False, fail=lambda: ProviderUnavailable("away", "no answer"))
    with pytest.raises(ProviderUnavailable):
        collect(organisation.id, invoice.id, away)
    with clock.frozen(clock.now() + timedelta(minutes=5)):
        tasks.sweep()
    assert read(organisation.id, invoice).status == "paid"


def test_the_provider_is_never_called_inside_a_transaction(organisation, billed, stripe):
    invoice = billed(organisation)
    with (
        pytest.raises(InvariantBroken, match="outside transactions"),
        tenant_scope(organisation.id),
    ):
        collect(organisation.id, invoice.id, stripe)


def test_a_step_is_frozen_before_it_is_sent(organisation, billed, stripe):
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, billed(organisation).id, stripe)
    with tenant_scope(organisation.id):
        rows = PaymentStep.objects.filter(kind="lines")
    for change in (
        {"parameters": "{}"},
        {"idempotency_key": "another"},
        {"revision": 9},
        {"state": "ready"},
    ):
        with pytest.raises(IntegrityError), tenant_scope(organisation.id):
            rows.update(**change)


def test_another_tenants_run_is_not_there(organisation, billed, stripe, onboard):
    invoice = billed(organisation)
    other = onboard("other")
    with tenant_scope(other.id):
        assert PaymentRun._base_manager.count() == PaymentStep._base_manager.count() == 0
    with pytest.raises(Invoice.DoesNotExist):
        collect(other.id, invoice.id, stripe)
