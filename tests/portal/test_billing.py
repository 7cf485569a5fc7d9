"""Invoices show their lines, the lines add up, and the CSV says the same."""

import csv
import io
from datetime import timedelta
from decimal import Decimal

import pytest

from billing.invoicing.close import close_period
from billing.invoicing.taxation import assign_rates, create_rate
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.invoicing.test_adjustments import publish_entries, requests
from tests.billing.rating.agreements import GRADUATED
from tests.billing.world import ingest, used
from tests.portal import history
from tests.portal.test_usage import tables

TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def invoice(third_of_november, organisation):
    """October's, paid; November has begun."""
    history.offer()
    history.live_through(organisation, days=6)
    return history.invoice_last_month(organisation)


def test_an_invoice_is_listed_and_adds_up(owner, invoice):
    listed = owner.get("/billing/").text
    assert invoice.number in listed
    assert "Paid" in listed
    page = owner.get(f"/billing/{invoice.id}/")
    assert invoice.hosted_url in page.text
    lines = tables(page)[0][1:]
    amounts = [Decimal(cells[-1].removeprefix("$").replace(",", "")) for cells in lines]
    assert len(amounts) > 2
    assert sum(amounts[:-1]) == amounts[-1] == Decimal(invoice.total_minor) / 100


def test_the_csv_of_an_invoice_holds_its_lines_and_adds_up_to_the_total(owner, invoice):
    page = tables(owner.get(f"/billing/{invoice.id}/"))[0][1:]
    download = owner.get(f"/billing/{invoice.id}/?format=csv")
    rows = list(csv.DictReader(io.StringIO(download.content.decode())))
    assert f'filename="{invoice.number}.csv"' in download["Content-Disposition"]
    assert [(row["model"], row["quantity"], row["amount"]) for row in rows] == [
        (cells[0], cells[2].replace(",", ""), cells[4].removeprefix("$").replace(",", ""))
        for cells in page[:-1]
    ]
    total = sum(Decimal(row["amount"]) for row in rows)
    assert total == Decimal(invoice.total_minor) / 100


def test_what_is_not_invoiced_yet_is_shown_as_upcoming(owner, invoice):
    page = owner.get("/billing/")
    upcoming = tables(page)[0]
    amounts = [Decimal(cells[-1].removeprefix("$").replace(",", "")) for cells in upcoming[1:]]
    assert sum(amounts[:-1]) == amounts[-1] > 0
    assert "Usage since" in page.text


def test_what_is_to_come_says_what_credit_and_taxes_make_of_it(owner, invoice, organisation):
    rate = create_rate(name="VAT", percentage="10", mode="exclusive")
    with tenant_scope(organisation.id):
        assign_rates([rate.id])
    give(organisation, 1, "a cent", effective_at=clock.now() - timedelta(hours=1))
    *lines, subtotal, tax, total = tables(owner.get("/billing/"))[0][1:]
    shown = [subtotal[0], tax[0].partition(" on ")[0], total[0]]
    assert shown == ["Subtotal", "VAT 10 %", "Total"]
    amounts = [
        Decimal(cells[-1].replace("\N{MINUS SIGN}", "-").replace("$", "").replace(",", ""))
        for cells in (*lines, subtotal, tax, total)
    ]
    assert amounts[-4] == Decimal("-0.01")
    assert sum(amounts[:-3]) == amounts[-3]
    assert amounts[-3] + amounts[-2] == amounts[-1]
    assert abs(amounts[-2] * 10 - amounts[-3]) <= Decimal("0.05")


def test_without_usage_billing_says_what_would_make_an_invoice(owner, organisation):
    history.offer()
    page = owner.get("/billing/").text
    assert "Nothing to invoice so far" in page
    assert "close-period --org acme --now" in page


def test_a_line_with_tiers_opens_to_show_them(owner, third_of_november, organisation):
    version = publish_entries(requests(GRADUATED, "Calls"))
    ingest(used(organisation, version, clock.now() - timedelta(hours=1), requests=1500))
    page = owner.get("/billing/")
    (line,) = tables(page)[0][1:-1]
    assert line[-1] == "$12.50"
    assert "<details" in page.text
    assert f"Tier 1: 1,000 {TIMES} $0.01" in page.text
    assert f"Tier 2: 500 {TIMES} $0.005" in page.text
    assert "1,500 requests: 1,000 x $0.01 + 500 x $0.005 = $12.50" in page.text
    invoice = close_period(organisation.id, clock.now())
    assert invoice is not None
    shown = owner.get(f"/billing/{invoice.id}/").text
    assert f"Tier 2: 500 {TIMES} $0.005" in shown
    (row,) = csv.DictReader(io.StringIO(owner.get(f"/billing/{invoice.id}/?format=csv").text))
    told = [row[name] for name in ("kind", "quantity", "unit_price", "amount")]
    assert told == ["usage", "1500", "", "12.50"]
