"""What is only for invoices at the provider leaves those alone that are paid by bank transfer; and
what an installation without a provider does."""

import io
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from billing.invoicing.close import close_period
from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.interim import make_interim
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.parties import set_details
from billing.invoicing.tax_choice import choose_taxes
from billing.invoicing.thresholds import set_threshold
from billing.ledger.audit import audit
from billing.payments import tasks, withdraw
from billing.payments.accounts import attach_test_card
from billing.payments.auto_reload import ReloadTerms, reload_if_low, set_auto_reload
from billing.payments.by_hand import TAXED_THERE, record_payment, take_back
from billing.payments.collect import collect, resume
from billing.payments.dun import dun
from billing.payments.models import (
    AutoReload,
    BillingAccount,
    CarriedInvoice,
    DunningStep,
    PaymentRun,
    RecordedPayment,
    TopUp,
)
from billing.payments.provider import NoProvider
from billing.payments.reconcile.kinds import BROUGHT_WITHIN, invoices
from billing.payments.stripe import provider
from billing.payments.terms import PAYS_BY_HAND, set_terms
from billing.payments.top_ups import buy_credit
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import customer_of, read, standing
from tests.billing.world import ingest, used

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def without_provider(settings) -> None:
    settings.PAYMENT_PROVIDER, settings.STRIPE_API_KEY = "none", ""


def pays(tenant, method: str, days: int = 14) -> None:
    with tenant_scope(tenant.id):
        set_terms(method, days, by="test")


def wired(invoice: Invoice, amount_minor: int, reference: str = "wire"):
    with tenant_scope(invoice.tenant_id):
        return record_payment(
            invoice.id,
            amount_minor=amount_minor,
            paid_on=clock.now().date(),
            reference=reference,
            by="test",
        )


def less(invoice: Invoice, amount_minor: int) -> None:
    """A credit note takes so much off what is due."""
    with tenant_scope(invoice.tenant_id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor")[0]
        asked = [LineAsked(line.id, amount_minor=amount_minor)]
        create_credit_note(invoice.id, reason="goodwill", idempotency_key="less", lines=asked)


def test_an_open_one_that_is_due_less_waits_again_and_is_paid_with_less(
    organisation, billed, without_provider
):
    pays(organisation, "manual")
    invoice = billed(organisation)
    tasks.sweep()
    less(invoice, 100)
    assert read(organisation.id, invoice).collection_state == "pending"
    tasks.sweep()
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state, ours.collection_note) == (
        "open", "awaiting_payment", "",
    )  # fmt: skip
    assert wired(invoice, 201).left_minor == 0
    assert read(organisation.id, invoice).status == "paid"
    assert held(organisation.id)["payments"] == 201
    assert all(verdict.holds for verdict in audit())


def test_one_that_stripe_taxes_is_parked_until_it_may_go_there(organisation, billed, stripe, there):
    pays(organisation, "manual")
    with tenant_scope(organisation.id):
        set_details(name="", address="", country="DE", tax_ids=[], purchase_order="")
        choose_taxes([], "stripe")
    invoice = billed(organisation)
    tasks.collect(str(organisation.id), str(invoice.id))
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state, ours.collection_note) == (
        "draft", "parked", TAXED_THERE,
    )  # fmt: skip
    with pytest.raises(CallerError) as refused:
        pays(organisation, "manual")
    assert (refused.value.code, refused.value.field) == ("taxed_by_provider", "method")
    pays(organisation, "send_invoice")
    resume(organisation.id, invoice.id)
    collect(organisation.id, invoice.id, stripe)
    assert [each.collection_method for each in there.invoices(organisation)] == ["send_invoice"]


def test_one_that_is_never_brought_there_is_no_difference_to_the_provider(onboard, billed, stripe):
    found: dict[str, list[str]] = {}
    for method in ("manual", "charge_automatically"):
        tenant = onboard(method.replace("_", "-"))
        pays(tenant, method)
        before = [str(billed(tenant).id)]
        if method == "manual":
            issued = billed(tenant)
            collect(tenant.id, issued.id, stripe)
            less(issued, 1)
            before.append(str(issued.id))
        found[method] = before
    now = clock.now()
    with clock.frozen(now + BROUGHT_WITHIN + timedelta(hours=1)):
        rows = invoices(stripe).ours_made(now - timedelta(hours=1), now + timedelta(hours=1))
    told = {row.our_id for row in rows}
    assert told.isdisjoint(found["manual"])
    assert told >= set(found["charge_automatically"])


def test_a_small_one_is_not_carried_and_what_was_carried_gets_its_own_turn(
    organisation, billed, stripe, there
):
    carried = billed(organisation, tokens_out=0)
    collect(organisation.id, carried.id, stripe)
    assert read(organisation.id, carried).collection_state == "carried"
    with clock.frozen(clock.now() + timedelta(days=60)):
        pays(organisation, "manual")
        small = billed(organisation, tokens_out=0)
        tasks.sweep()
        dun(lambda: pytest.fail("no provider is asked"))
    for each in (carried, small):
        ours = read(organisation.id, each)
        assert (ours.status, ours.collection_state, ours.collection_note) == (
            "open", "awaiting_payment", "",
        )  # fmt: skip
    assert standing(organisation.id) == "active"  # it is due from now on, not from then
    with tenant_scope(organisation.id):
        assert not CarriedInvoice.objects.exists()
    assert wired(carried, 1).left_minor == 0
    assert there.invoices(organisation) == []


def test_what_goes_with_another_invoice_stays_with_it(organisation, billed, stripe):
    carried = billed(organisation, tokens_out=0)
    collect(organisation.id, carried.id, stripe)
    large = billed(organisation)
    collect(organisation.id, large.id, stripe)
    pays(organisation, "manual")
    with pytest.raises(CallerError) as refused:
        wired(carried, 1)
    assert refused.value.code == "not_paid_by_hand"
    with tenant_scope(organisation.id), pytest.raises(CallerError) as kept:
        withdraw.ask(carried.id, withdraw.VOID, "made twice")
    assert kept.value.code == "collected_with_another"
    ours = read(organisation.id, carried)
    assert (ours.status, ours.collection_state) == ("open", "carried")


def test_credit_is_neither_bought_nor_reloaded(organisation, stripe):
    attach_test_card(organisation.id, stripe)
    rules = ReloadTerms(is_on=True, threshold="10", amount="20", month_max="45")
    set_auto_reload(organisation.id, rules, by="test")
    pays(organisation, "manual")
    with pytest.raises(CallerError) as bought:
        buy_credit(organisation.id, "20", stripe, idempotency_key="one", by="test")
    with pytest.raises(CallerError) as turned_on:
        set_auto_reload(organisation.id, rules, by="test")
    assert (bought.value.code, turned_on.value.code) == ("pays_by_hand", "pays_by_hand")
    assert reload_if_low(organisation.id, stripe) is None
    with tenant_scope(organisation.id):
        assert AutoReload.objects.get().pause_note == PAYS_BY_HAND
        assert not TopUp.objects.exists()


@pytest.mark.parametrize("away", ["none", "unreachable"])
def test_a_period_is_closed_and_issued_at_once_with_no_provider(
    organisation, prices, settings, away
):
    settings.SELLER_BANK_DETAILS = "IBAN DE02"
    settings.PAYMENT_PROVIDER = "none" if away == "none" else "stripe"
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    pays(organisation, "manual", 30)
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=5), "tiny-lm"))
    out = io.StringIO()
    call_command("close_period", stdout=out, org="acme", now=True)
    due = (clock.now() + timedelta(days=30)).date()
    for said in ("ACME-000001 is open", f"Due on {due.day} {due:%b %Y}.", "IBAN DE02"):
        assert said in out.getvalue()


def test_interim_invoices_are_issued_paid_and_taken_back_by_the_months_own(
    organisation, prices, without_provider
):
    pays(organisation, "manual")
    with tenant_scope(organisation.id):
        set_threshold("3", by="test")
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=301))
    interim = make_interim(organisation.id)
    tasks.sweep()
    assert read(organisation.id, interim).status == "open"
    wired(interim, 301)
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=50))
    final = close_period(organisation.id, clock.now())
    tasks.sweep()
    assert (final.total_minor, read(organisation.id, final).status) == (50, "open")
    wired(final, 50)
    assert held(organisation.id)["payments"] == 351
    assert not {"receivable", "deferred_revenue"} & set(held(organisation.id))
    assert all(verdict.holds for verdict in audit())


def test_without_a_provider_who_is_charged_is_parked_and_may_pay_by_transfer(
    organisation, billed, without_provider
):
    invoice = billed(organisation)
    tasks.sweep()
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state) == ("draft", "parked")
    assert "PAYMENT_PROVIDER=none" in ours.collection_note
    with tenant_scope(organisation.id):
        assert not BillingAccount.objects.exists()
    pays(organisation, "manual")
    resume(organisation.id, invoice.id)
    tasks.sweep()
    assert read(organisation.id, invoice).status == "open"
    assert wired(invoice, 301).left_minor == 0
    with pytest.raises(NoProvider):
        provider()


def test_where_the_provider_was_given_up_open_invoices_age_all_the_same(
    organisation, billed, stripe, settings
):
    attach_test_card(organisation.id, stripe, "pm_card_chargeCustomerFail")
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    settings.PAYMENT_PROVIDER = "none"
    for days in (0, 14, 15):
        with clock.frozen(clock.now() + timedelta(days=days, hours=1)):
            tasks.sweep()
            dun(provider)
    assert read(organisation.id, invoice).collection_state == "awaiting_payment"
    assert standing(organisation.id) == "suspended"
    with tenant_scope(organisation.id):
        note = DunningStep.objects.get(kind="charge").note
    assert "no payment provider" in note


def test_a_void_ends_what_dunning_began(organisation, billed, without_provider):
    pays(organisation, "manual", 0)
    invoice = billed(organisation)
    tasks.sweep()
    for days in (0, 14):
        with clock.frozen(clock.now() + timedelta(days=days, hours=1)):
            dun(provider)
    assert standing(organisation.id) == "suspended"
    with tenant_scope(organisation.id):
        withdraw.ask(invoice.id, withdraw.VOID, "made twice")
    assert standing(organisation.id) == "active"
    with pytest.raises(CallerError) as refused:
        wired(invoice, 301)
    assert refused.value.code == "invoice_not_payable"
    assert not {"receivable", "payments"} & set(held(organisation.id))
    assert all(verdict.holds for verdict in audit())


def test_a_card_that_is_kept_charges_nothing_that_is_paid_by_transfer(
    organisation, billed, stripe, there
):
    pays(organisation, "manual")
    invoice = billed(organisation)
    tasks.collect(str(organisation.id), str(invoice.id))
    attach_test_card(organisation.id, stripe)
    assert read(organisation.id, invoice).collection_state == "pending"
    tasks.sweep()
    assert read(organisation.id, invoice).collection_state == "awaiting_payment"
    assert there.paid_minor(customer_of(organisation.id)) == 0
    with tenant_scope(organisation.id):
        assert not PaymentRun.objects.exists()


def test_the_database_lets_only_what_was_paid_in_parts_be_owed_again(
    organisation, billed, stripe, without_provider
):
    pays(organisation, "manual")
    invoice, other = billed(organisation), billed(organisation, tokens_out=0)
    tasks.sweep()
    whole = wired(invoice, 301)
    part = wired(other, 1)

    def rows(**said: object) -> Callable[[], object]:
        with tenant_scope(organisation.id):
            row = RecordedPayment.objects.get(id=whole.id)
        row.pk, row._state.adding = None, True
        for name, value in {"amount_minor": -301, "reason": "x", **said}.items():
            setattr(row, name, value)
        return lambda: row.save(force_insert=True)

    def owed(**said: object) -> Callable[[], object]:
        return lambda: Invoice.objects.filter(id=invoice.id).update(
            **{"status": "open", "paid_at": None, "paid_minor": None, **said}
        )

    for forbidden in (
        rows(takes_back_id=part.id),  # of another invoice, and amount
        rows(takes_back_id=whole.id, amount_minor=-300),
        rows(takes_back_id=whole.id, reason=""),
        rows(),
        rows(amount_minor=0, balance_minor=0),
        rows(amount_minor=10, balance_minor=11, reference="other"),
        owed(),  # as long as it says that it was paid in parts
        owed(status="void", paid_in_parts=False),
    ):
        with tenant_scope(organisation.id), pytest.raises(IntegrityError), transaction.atomic():
            forbidden()
    with tenant_scope(organisation.id), transaction.atomic():
        take_back(invoice.id, whole.id, reason="it bounced", by="test")
        with pytest.raises(IntegrityError), transaction.atomic():
            rows(takes_back_id=whole.id)()


def test_the_database_keeps_what_a_provider_was_paid_as_paid(organisation, billed, stripe):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    with tenant_scope(organisation.id), pytest.raises(IntegrityError), transaction.atomic():
        Invoice.objects.filter(id=invoice.id).update(status="open", paid_at=None, paid_minor=None)
