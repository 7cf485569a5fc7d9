"""A credit note of ours stands at the provider once, to the cent, and moves the money it moves."""

from contextlib import suppress

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import CreditNote, InvoiceLine
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import PaymentRun, Refund
from billing.payments.process import refresh
from billing.payments.provider import ProviderFault, ProviderUnavailable
from meterplane.kernel.errors import WorldError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.rig import Faulty, Killed, read, steps_of

pytestmark = pytest.mark.django_db(transaction=True)


def credited(tenant, invoice, cents: int, effect: str = "", key: str = "") -> CreditNote:
    """A credit note over so much of the invoice's largest line."""
    with tenant_scope(tenant.id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor").first()
        assert line is not None
        return create_credit_note(
            invoice.id,
            reason="duplicate",
            effect=effect,
            idempotency_key=key or f"{effect} {cents}",
            lines=[LineAsked(line.id, cents)],
        )


def paid(tenant, billed, stripe):
    """An invoice of 3.01, charged to a card."""
    attach_test_card(tenant.id, stripe)
    invoice = billed(tenant)
    assert collect(tenant.id, invoice.id, stripe).status == "paid"
    return invoice


def notes_there(there, tenant):
    [invoice] = there.invoices(tenant)
    return list(there.client.v1.credit_notes.list({"invoice": invoice.id}).auto_paging_iter())


def refunds_of(tenant) -> list[tuple[str, str, int, int, int]]:
    """(origin, state, amount, of what was promised, of what was overpaid) of each."""
    with tenant_scope(tenant.id):
        return list(
            Refund.objects.order_by("created_at", "id").values_list(
                "origin", "state", "amount_minor", "owed_minor", "balance_minor"
            )
        )


def assert_sound() -> None:
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


def test_of_an_open_invoice_the_customer_is_charged_what_is_left(
    organisation, billed, stripe, there
):
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "open"
    note = credited(organisation, invoice, 100)
    attach_test_card(organisation.id, stripe)
    tasks.sweep()
    [theirs], [its_note] = there.invoices(organisation), notes_there(there, organisation)
    assert (its_note.total, its_note.pre_payment_amount, its_note.reason) == (100, 100, "duplicate")
    assert its_note.to_dict()["metadata"]["meterplane_credit_note"] == str(note.id)
    [line] = its_note.lines.data
    assert (line.type, line.amount) == ("invoice_line_item", 100)
    assert (theirs.status, theirs.total, theirs.amount_paid) == ("paid", 301, 201)
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.paid_minor, ours.collection_state) == ("paid", 201, "done")
    assert booked(organisation)["payments"] == 201
    assert "customer_balance" not in booked(organisation)
    assert refunds_of(organisation) == []
    tasks.sweep()
    assert len(notes_there(there, organisation)) == 1
    assert_sound()


def test_a_note_over_all_that_is_due_settles_the_invoice(organisation, billed, stripe, there):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    with tenant_scope(organisation.id):
        create_credit_note(invoice.id, reason="other", idempotency_key="all")
    tasks.sweep()
    [theirs] = there.invoices(organisation)
    ours = read(organisation.id, invoice)
    assert (theirs.status, theirs.amount_paid) == ("paid", 0)
    assert (ours.status, ours.paid_minor, ours.collection_state) == ("paid", 0, "done")
    assert booked(organisation) == {}
    assert_sound()


def test_what_was_paid_before_the_note_arrived_goes_back_to_the_card(
    organisation, billed, stripe, there
):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    credited(organisation, invoice, 100)
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)
    refresh(organisation.id, invoice.id, theirs.id, stripe)
    assert booked(organisation)["customer_balance"] == -100
    tasks.sweep()
    [its_note] = notes_there(there, organisation)
    assert (its_note.post_payment_amount, len(its_note.refunds)) == (100, 1)
    assert refunds_of(organisation) == [("note", "succeeded", 100, 0, 100)]
    assert booked(organisation)["payments"] == 201
    assert "customer_balance" not in booked(organisation)
    assert read(organisation.id, invoice).collection_state == "done"
    assert_sound()


@pytest.mark.parametrize(
    ("effect", "payments", "rest"),
    [("refund", 201, {}), ("balance", 301, {"credits:purchased": -100})],
)
def test_of_a_paid_invoice_the_money_goes_back_or_stays_as_credit(
    organisation, billed, stripe, there, effect, payments, rest
):
    invoice = paid(organisation, billed, stripe)
    credited(organisation, invoice, 100, effect)
    tasks.sweep()
    [its_note] = notes_there(there, organisation)
    outside = 0 if effect == "refund" else 100
    assert (its_note.post_payment_amount, its_note.out_of_band_amount or 0) == (100, outside)
    [charge] = there.client.v1.charges.list({"customer": its_note.customer}).data
    assert charge.amount_refunded == 100 - outside
    books = booked(organisation)
    assert books.pop("payments") == payments
    assert {name: amount for name, amount in books.items() if ":" not in name} == {}
    assert rest.items() <= books.items()
    assert read(organisation.id, invoice).collection_state == "done"
    assert_sound()


@pytest.mark.parametrize("calls", [range(4, 5), pytest.param(range(1, 30), marks=pytest.mark.long)])
def test_a_failure_at_any_call_issues_one_note_and_one_refund(
    onboard, billed, stripe, there, calls
):
    """Every call of issuing a note in turn: the worker is killed, the answer is lost, or a 500."""
    failures = {
        "killed": Killed,
        "away": lambda: ProviderUnavailable("away", "no answer"),
        "fault": lambda: ProviderFault("fault", "HTTP 500"),
    }
    tenant = onboard("acme")
    invoice = paid(tenant, billed, stripe)
    made: set[str] = set()
    total = 0
    for at in calls:
        fail = list(failures)[at % 3]
        for after in (True, False):
            credited(tenant, invoice, 1, "refund", key=f"{at} {after}")
            total += 1
            with tenant_scope(tenant.id):
                note = CreditNote.objects.order_by("-number").first()
            assert note is not None
            faulty = Faulty(stripe, at, after=after, fail=failures[fail])
            with suppress(Killed, WorldError):
                tasks.credit_notes.issue(tenant.id, note.id, faulty)
            made |= set(faulty.calls)
            tasks.sweep()
            assert len(notes_there(there, tenant)) == total
            assert [each[2:] for each in refunds_of(tenant)] == [(1, 1, 0)] * total
        if not faulty.has_failed:
            break
    assert len(calls) == 1 or not faulty.has_failed
    assert {"credit_note", "invoice", "lines"} <= made
    assert booked(tenant)["payments"] == 301 - total
    assert read(tenant.id, invoice).collection_state == "done"
    assert_sound()


def test_a_note_that_is_not_ours_parks_the_invoice(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.credit_notes.create(
        {"invoice": theirs.id, "amount": 50, "out_of_band_amount": 50}
    )
    refresh(organisation.id, invoice.id, theirs.id, stripe)
    ours = read(organisation.id, invoice)
    assert ours.collection_state == "parked"
    assert "credit notes: ours 0, theirs 50" in ours.collection_note


def test_what_the_provider_refuses_parks_the_invoice(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    [theirs] = there.invoices(organisation)
    credited(organisation, invoice, 250, "refund")
    # Refunded by hand meanwhile: only 0.51 is left to credit there.
    with tenant_scope(organisation.id):
        run = PaymentRun.objects.get(invoice_id=invoice.id)
    charge = stripe.charge_of(run.provider_invoice_id)
    there.client.v1.refunds.create({"charge": charge.charge_id, "amount": 250})
    tasks.sweep()
    ours = read(organisation.id, invoice)
    assert ours.collection_state == "parked"
    assert "refused credit note" in ours.collection_note
    assert notes_there(there, organisation) == []
    assert [step for step in steps_of(organisation.id) if step[0] == "credit_note"] == [
        ("credit_note", n, "failed") for n in (1, 2, 3)
    ]
    assert theirs.total == 301
