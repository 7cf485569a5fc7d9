"""A taxed invoice at Stripe: each tax on top is a line there, and all of them are the total."""

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import InvoiceLine, InvoiceTax
from billing.invoicing.taxation import assign_rates, create_rate
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from tenants.scoping import tenant_scope
from tests.billing.payments.rig import read

pytestmark = pytest.mark.django_db(transaction=True)


def taxed(organisation, billed):
    made = [
        create_rate(name="VAT", percentage="19", mode="exclusive"),
        create_rate(name="Levy", percentage="2.5", mode="exclusive"),
        create_rate(name="GST", percentage="5", mode="inclusive"),
    ]
    with tenant_scope(organisation.id):
        assign_rates([rate.id for rate in made])
    return billed(organisation)


def test_a_taxed_invoice_is_verified_line_by_line_and_paid_to_the_cent(
    organisation, billed, stripe, there
):
    attach_test_card(organisation.id, stripe)
    invoice = taxed(organisation, billed)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    ours = read(organisation.id, invoice)
    [theirs] = there.invoices(organisation)
    assert ours.tax_exclusive_minor > 0
    assert (theirs.total, theirs.subtotal, theirs.amount_paid) == (ours.total_minor,) * 3
    with tenant_scope(organisation.id):
        lines = list(InvoiceLine.objects.filter(invoice_id=invoice.id))
        taxes = list(InvoiceTax.objects.filter(invoice_id=invoice.id, mode="exclusive"))
    assert sorted(there.lines(theirs.id)) == sorted(
        [(str(line.id), line.amount_minor, line.description) for line in lines]
        + [(str(tax.id), tax.amount_minor, str(tax)) for tax in taxes]
    )


def test_an_open_invoice_that_is_credited_is_charged_what_is_left_with_its_taxes(
    organisation, billed, stripe, there
):
    invoice = taxed(organisation, billed)
    assert collect(organisation.id, invoice.id, stripe).status == "open"  # there is no card yet
    with tenant_scope(organisation.id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor").first()
        assert line is not None
        note = create_credit_note(
            invoice.id, reason="goodwill", idempotency_key="a", lines=[LineAsked(line.id, 100)]
        )
    assert note.tax_exclusive_minor > 0
    attach_test_card(organisation.id, stripe)
    outcome = collect(organisation.id, invoice.id, stripe, retry=True)
    assert (outcome.status, outcome.collection_state) == ("paid", "done")
    [theirs] = there.invoices(organisation)
    assert theirs.amount_paid == invoice.total_minor - note.total_minor
    [issued] = there.client.v1.credit_notes.list({"invoice": theirs.id}).data
    # Taxes are lines there, and so is what of them goes back.
    lines = [(each.type, each.amount) for each in issued.lines.data]
    assert {kind for kind, _ in lines} == {"invoice_line_item"}
    assert lines[0][1] == 100
    assert sum(amount for _, amount in lines[1:]) == note.tax_exclusive_minor
