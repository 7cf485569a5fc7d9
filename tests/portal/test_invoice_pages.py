"""An invoice leads to its requests and files; who may, says who is billed."""

import csv
import io
import re

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import InvoiceLine
from billing.invoicing.parties import details
from billing.invoicing.taxation import assign_rates, create_rate
from tenants.scoping import tenant_scope
from tests.portal import history
from tests.portal.test_usage import tables

# Committed, as usage is in life: what a close had seen is told by transactions.
pytestmark = pytest.mark.django_db(transaction=True)
FORM = {
    "name": "Acme GmbH",
    "address": "Straße 1\r\n10243 Berlin",
    "country": "de",
    "tax_id_type": "eu_vat",
    "tax_ids": "DE123456789",
    "purchase_order": "PO-7",
}


@pytest.fixture
def invoice(third_of_november, organisation):
    """October's, open, with 19 % on top."""
    history.offer()
    history.live_through(organisation, days=4)
    vat = create_rate(name="VAT", percentage="19", mode="exclusive", country="DE")
    with tenant_scope(organisation.id):
        assign_rates([vat.id])
    return history.invoice_last_month(organisation, paid=False)


def test_a_line_leads_to_its_requests_a_request_back_and_all_of_it_to_files(
    owner, organisation, invoice, as_role, onboard, signed_in
):
    page = owner.get(f"/billing/{invoice.id}/").text
    assert "VAT 19 % (DE)" in page
    with tenant_scope(organisation.id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-quantity").first()
    assert line is not None
    address = f"/billing/{invoice.id}/lines/{line.id}/"
    assert f'href="{address}"' in page

    # Page after page, to the last request; what the page says they add up to is the quantity.
    ids, units, following = [], 0, address
    while following:
        shown = owner.get(following)
        assert "Exactly what was billed" in shown.text
        rows = tables(shown)[0][1:]
        ids += re.findall(r'href="/requests/([0-9a-f-]{36})/"', shown.text)
        units += sum(int(cells[-1].replace(",", "")) for cells in rows)
        found = re.search(r'href="(\?after=[0-9a-f-]{36})"', shown.text)
        following = address + found[1] if found else ""
    assert units == line.quantity
    assert len(ids) == len(set(ids)) > 50

    # The file has the same ones.
    text = b"".join(owner.get(f"{address}events/").streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["request_id"] for row in rows] == ids
    assert sum(int(row["units"]) for row in rows) == line.quantity

    # And back.
    request = owner.get(f"/requests/{ids[-1]}/").text
    assert f'href="{address}"' in request
    assert f"{invoice.number}, line {line.position}" in request

    pdf = owner.get(f"/billing/{invoice.id}/pdf/")
    assert pdf["Content-Type"] == "application/pdf"
    assert f'filename="{invoice.number}.pdf"' in pdf["Content-Disposition"]
    assert pdf.content.startswith(b"%PDF")
    usage = b"".join(owner.get(f"/billing/{invoice.id}/usage/").streaming_content).decode()
    assert (
        sum(
            int(row["quantity"])
            for row in csv.DictReader(io.StringIO(usage))
            if row["line"] == str(line.id)
        )
        == line.quantity
    )

    with tenant_scope(organisation.id):
        note = create_credit_note(
            invoice.id,
            reason="goodwill",
            idempotency_key="a",
            lines=[LineAsked(line.id, 1)] if line.amount_minor else None,
        )
    assert note.number in owner.get(f"/billing/{invoice.id}/").text
    addresses = [
        address,
        f"{address}events/",
        f"/billing/{invoice.id}/",
        f"/billing/{invoice.id}/pdf/",
        f"/billing/{invoice.id}/usage/",
        f"/billing/credit-notes/{note.id}/pdf/",
    ]
    viewer, stranger = as_role("viewer"), signed_in(onboard("globex").owner)
    for each in addresses:
        assert viewer.get(each).status_code == 200
        assert stranger.get(each).status_code == 404


def test_who_is_billed_is_said_by_owners_and_those_who_do_the_billing(
    third_of_november, organisation, owner, as_role
):
    assert owner.post("/billing/details/", FORM).status_code == 302
    with tenant_scope(organisation.id):
        given = details()
    assert (given.address, given.country) == ("Straße 1\n10243 Berlin", "DE")
    page = owner.get("/billing/").text
    assert "Acme GmbH" in page
    assert "DE123456789" in page
    wrong = owner.post("/billing/details/", FORM | {"tax_ids": "12", "name": "Other"})
    assert "This is no EU VAT number" in wrong.text
    assert as_role("billing").post("/billing/details/", FORM | {"name": "B"}).status_code == 302
    for role in ("developer", "viewer"):
        member = as_role(role)
        assert member.post("/billing/details/", FORM | {"name": "X"}).status_code == 403
        assert "/billing/details/" not in member.get("/billing/").text
    with tenant_scope(organisation.id):
        assert details().name == "B"
