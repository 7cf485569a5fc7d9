"""Taxes when a period closes, who an invoice is made out to, and its files."""

import csv
import hashlib
import io
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.documents import invoice_document
from billing.invoicing.invoice_csv import lines_csv
from billing.invoicing.models import BillingDetails, Invoice, InvoiceTax, TaxRate
from billing.invoicing.parties import details, set_details
from billing.invoicing.printed import printed_invoice
from billing.invoicing.taxation import (
    assign_rates,
    create_rate,
    end_exemption,
    exempt,
    retire_rate,
)
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope, tenant_scope
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
GIVEN = {
    "name": "Acme GmbH",
    "address": "Straße 1\n10243 Berlin",
    "country": "de",
    "tax_ids": [{"type": "eu_vat", "value": "de 123 456 789"}],
    "purchase_order": "PO-7",
}


def rated(tenant, *rates: TaxRate) -> None:
    with tenant_scope(tenant.id):
        assign_rates([rate.id for rate in rates])


@pytest.fixture
def vat(db) -> TaxRate:
    return create_rate(name="VAT", percentage="19", mode="exclusive", country="DE")


def october(tenant, prices, **counts) -> Invoice:
    """3.33 of input tokens and a cent for the request."""
    ingest(used(tenant, prices, utc(10, 5), tokens_in=1_665_000, **counts))
    invoice = close_period(tenant.id, utc(11, 1))
    assert invoice is not None
    return invoice


def sums(tenant, invoice: Invoice) -> tuple[int, int, int, int]:
    with tenant_scope(tenant.id):
        found = Invoice.objects.get(id=invoice.id)
    return (
        found.subtotal_minor,
        found.tax_exclusive_minor,
        found.tax_inclusive_minor,
        found.total_minor,
    )


def test_without_rates_the_total_is_the_lines(acme, prices):
    assert sums(acme, october(acme, prices)) == (334, 0, 0, 334)


def test_a_tax_on_top_is_rounded_once_over_the_invoice(acme, prices, vat):
    rated(acme, vat)
    assert sums(acme, october(acme, prices)) == (334, 63, 0, 397)


def test_taxes_in_prices_and_on_top_of_them(acme, prices, vat):
    inside = create_rate(name="GST", percentage="10", mode="inclusive")
    rated(acme, vat, inside)
    invoice = october(acme, prices)
    # 3.34 with 10 % in it is 3.0363 net: 0.3036 in it, 19 % of the net on top are 0.5769.
    assert sums(acme, invoice) == (334, 58, 30, 392)
    with tenant_scope(acme.id):
        taxes = InvoiceTax.objects.filter(invoice=invoice).order_by("position")
        assert [(str(tax), tax.taxable_minor, tax.amount_minor) for tax in taxes] == [
            ("GST 10 %", 304, 30),
            ("VAT 19 %", 304, 58),
        ]


def test_an_exemption_stands_above_the_rates_and_says_why(acme, prices, vat):
    rated(acme, vat)
    with tenant_scope(acme.id):
        exempt("reverse_charge", "Article 196, Directive 2006/112/EC")
    invoice = october(acme, prices)
    assert sums(acme, invoice) == (334, 0, 0, 334)
    with tenant_scope(acme.id):
        assert "Article 196" in Invoice.objects.get(id=invoice.id).tax_note
        end_exemption()
    ingest(used(acme, prices, utc(11, 3), tokens_in=1_665_000))
    november = close_period(acme.id, utc(11, 20))
    assert november is not None
    assert sums(acme, november) == (334, 63, 0, 397)


def test_a_retired_rate_is_on_no_further_invoice_and_stays_on_the_old_one(acme, prices, vat):
    rated(acme, vat)
    invoice = october(acme, prices)
    retire_rate(vat.id)
    ingest(used(acme, prices, utc(11, 3)))
    november = close_period(acme.id, utc(11, 20))
    assert november is not None
    assert sums(acme, november)[1] == 0
    assert sums(acme, invoice)[1] == 63
    with pytest.raises(CallerError, match="no tax rate"):
        rated(acme, vat)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("percentage", {"percentage": "19.00001"}),
        ("percentage", {"percentage": "NaN"}),
        ("percentage", {"percentage": "-1"}),
        ("percentage", {"percentage": "100.1"}),
        ("percentage", {"percentage": "a lot"}),
        ("mode", {"mode": "sometimes"}),
        ("country", {"country": "Germany"}),
        ("name", {"name": " "}),
    ],
)
def test_a_rate_that_cannot_be_is_refused_by_its_field(db, field, given):
    with pytest.raises(CallerError) as refused:
        create_rate(**({"name": "VAT", "percentage": "19", "mode": "exclusive"} | given))
    assert refused.value.field == field


FORBIDDEN = [
    "UPDATE tax_rate SET percentage = 7",
    "UPDATE invoice SET tax_exclusive_minor = 0",
    "UPDATE invoice SET total_minor = total_minor + 1",
    "UPDATE invoice SET buyer = '{}'",
    "UPDATE invoice_tax SET amount_minor = 1",
    "DELETE FROM invoice_tax",
    "INSERT INTO invoice_tax (id, tenant_id, invoice_id, position, rate_id, name, percentage, mode,"
    " country, taxable_minor, amount_minor) SELECT gen_random_uuid(), tenant_id, id, 9, (SELECT id"
    " FROM tax_rate LIMIT 1), 'x', 1, 'exclusive', '', 1, 1 FROM invoice; SET CONSTRAINTS ALL"
    " IMMEDIATE",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_postgresql_keeps_what_an_invoice_says(acme, prices, vat, statement):
    rated(acme, vat)
    invoice = october(acme, prices)
    with tenant_scope(acme.id):
        advance(invoice.id, News("open", clock.now()))
    with (
        pytest.raises(IntegrityError),
        system_scope("somebody tries"),
        transaction.atomic(),
        transaction.get_connection().cursor() as cursor,
    ):
        cursor.execute(statement)


def test_who_is_billed_is_frozen_with_the_number(acme, prices, settings):
    settings.SELLER = {"name": "Us", "address": "1 Way", "tax_id": "IE1", "email": "a@us.example"}
    invoice = october(acme, prices)
    with tenant_scope(acme.id):
        set_details(**GIVEN)
        draft = invoice_document(invoice.id)
        assert draft is not None
        assert draft.buyer.name == "Acme GmbH"
        advance(invoice.id, News("open", clock.now()))
        set_details(**(GIVEN | {"name": "Someone else", "purchase_order": ""}))
    settings.SELLER = settings.SELLER | {"name": "Them"}
    with tenant_scope(acme.id):
        document = invoice_document(invoice.id)
    assert document is not None
    assert (document.buyer.name, document.buyer.purchase_order) == ("Acme GmbH", "PO-7")
    assert document.buyer.address == ("Straße 1", "10243 Berlin")
    assert document.buyer.tax_ids == ("EU VAT number DE123456789",)
    assert (document.buyer.country, document.seller.name) == ("DE", "Us")


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("name", {"name": "x" * 121}),
        ("name", {"name": "a\x00b"}),
        ("address", {"address": "a\n" * 7}),
        ("address", {"address": "x" * 101}),
        ("country", {"country": "D1"}),
        ("tax_ids", {"tax_ids": [{"type": "eu_vat", "value": "12"}]}),
        ("tax_ids", {"tax_ids": [{"type": "moon", "value": "12"}]}),
        ("tax_ids", {"tax_ids": [{"type": "us_ein", "value": "12-3456789"}] * 6}),
        ("purchase_order", {"purchase_order": "x" * 41}),
        ("purchase_order", {"purchase_order": "\u202egnp.exe"}),
    ],
)
def test_details_that_cannot_be_printed_are_refused_by_their_field(acme, field, changed):
    with tenant_scope(acme.id):
        with pytest.raises(CallerError) as refused:
            set_details(**(GIVEN | changed))
        assert BillingDetails.objects.count() == 0
    assert refused.value.field == field


def test_details_of_one_organisation_are_nobody_elses(acme, onboard):
    with tenant_scope(acme.id):
        set_details(**GIVEN)
    with tenant_scope(onboard("globex").id):
        assert details().name == ""


@pytest.mark.parametrize("modes", [(), ("exclusive",), ("inclusive",), ("exclusive", "inclusive")])
def test_the_csv_adds_up_to_the_total(acme, prices, modes):
    rated(
        acme,
        *(create_rate(name=mode, percentage="7.7", mode=mode, country="CH") for mode in modes),
    )
    invoice = october(acme, prices, tokens_out=777)
    with tenant_scope(acme.id):
        rows = list(csv.DictReader(io.StringIO(lines_csv(invoice.id) or "")))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(sums(acme, invoice)[3]).scaleb(-2)
    assert [row["kind"] for row in rows] == ["usage"] * 3 + ["tax"] * ("exclusive" in modes)
    assert {row["currency"] for row in rows} == {"USD"}
    assert all(len(row["amount"].split(".")[1]) == 2 for row in rows)
    for row in rows[:3]:
        product = Decimal(row["quantity"]) * Decimal(row["unit_price"])
        assert abs(product - Decimal(row["amount"])) <= Decimal("0.005")


def test_the_pdf_of_an_invoice_is_the_same_bytes_and_says_what_changed(acme, prices, vat):
    rated(acme, vat)
    invoice = october(acme, prices)
    with tenant_scope(acme.id):
        set_details(**(GIVEN | {"name": "Łódź Кофе Ελλάς 株式会社 & <b>Söhne</b>"}))
        advance(invoice.id, News("open", clock.now()))
        first, again = printed_invoice(invoice.id), printed_invoice(invoice.id)
        advance(invoice.id, News("paid", clock.now()))
        paid = printed_invoice(invoice.id)
    assert first is not None
    assert first.startswith(b"%PDF-1.")
    assert hashlib.sha256(first).digest() == hashlib.sha256(again or b"").digest()
    assert paid != first
    assert b"+Inter-Regular" in first
    assert b"+Inter-SemiBold" in first
