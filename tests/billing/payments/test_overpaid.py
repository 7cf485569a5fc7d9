"""What a customer pays beyond what is due is theirs: a balance in the books, told to a person."""

from dataclasses import replace

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import InvoiceLine
from billing.ledger.audit import audit
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.mirror import mirror, park
from billing.payments.models import PaymentRun
from billing.payments.process import refresh
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.rig import read

pytestmark = pytest.mark.django_db(transaction=True)


def credited(tenant, invoice, cents: int) -> None:
    """A credit note over so much of the invoice's largest line."""
    with tenant_scope(tenant.id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor").first()
        assert line is not None
        create_credit_note(
            invoice.id,
            reason="goodwill",
            idempotency_key=f"{cents}",
            lines=[LineAsked(line.id, cents)],
        )


def pays_there(tenant, invoice, stripe, there) -> None:
    """The customer pays what the provider still asks for, and we look."""
    attach_test_card(tenant.id, stripe)
    [theirs] = there.invoices(tenant)
    there.client.v1.invoices.pay(theirs.id)
    refresh(tenant.id, invoice.id, theirs.id, stripe)


def test_the_whole_total_paid_after_a_credit_note_is_what_was_due_and_a_balance(
    organisation, billed, stripe, there
):
    invoice = billed(organisation)  # 3.01
    assert collect(organisation.id, invoice.id, stripe).status == "open"
    credited(organisation, invoice, 100)
    assert booked(organisation)["receivable"] == 201
    pays_there(organisation, invoice, stripe, there)
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.paid_minor, ours.collection_state) == ("paid", 301, "done")
    books = booked(organisation)
    assert (books["payments"], books["customer_balance"]) == (301, -100)
    assert "receivable" not in books
    said = ours.collection_note.splitlines()
    assert len(said) == 1
    assert said[0].startswith("1.00 USD more was paid than was due")
    # Looked at again, and parked for another reason: nothing is told twice or lost.
    with tenant_scope(organisation.id):
        their_id = PaymentRun.objects.get(invoice_id=invoice.id).provider_invoice_id
    refresh(organisation.id, invoice.id, their_id, stripe)
    park(organisation.id, invoice.id, "Somebody asked.")
    assert read(organisation.id, invoice).collection_note.splitlines() == [*said, "Somebody asked."]
    assert booked(organisation) == books
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


def test_what_the_provider_took_from_a_balance_it_keeps_was_paid_too(
    organisation, billed, stripe, there
):
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "open"
    credited(organisation, invoice, 100)
    [theirs] = there.invoices(organisation)
    # 2.50 of 3.01 came from a balance, and 0.51 from the card.
    paid = replace(
        stripe.invoice(theirs.id),
        status="paid",
        amount_due_minor=51,
        amount_paid_minor=51,
        starting_balance_minor=-250,
        ending_balance_minor=0,
    )
    assert mirror(organisation.id, invoice.id, paid)
    books = booked(organisation)
    assert (books["payments"], books["customer_balance"]) == (301, -100)


def test_what_was_due_and_no_more_leaves_no_balance(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    ours = read(organisation.id, invoice)
    assert (ours.paid_minor, ours.collection_note) == (301, "")
    assert booked(organisation)["payments"] == 301
    assert "customer_balance" not in booked(organisation)
