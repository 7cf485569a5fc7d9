"""Invoices through the control API: whole, as files, down to the events, credited and taxed."""

import csv
import io
from decimal import Decimal

import pytest
from rest_framework.test import APIClient

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.keys import issue_operator_key
from tenants.scoping import tenant_scope
from tests.billing.world import ingest, publish_prices, used, utc

pytestmark = pytest.mark.django_db(transaction=True)
NOBODY = uuid7()


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


@pytest.fixture
def world(onboard):
    """Acme from September on, its prices, seen from the end of November."""
    with clock.frozen(utc(11, 24, 12)):
        with clock.frozen(utc(9, 10)):
            tenant = onboard("acme")
        yield tenant, publish_prices()


def put_rate(operator) -> str:
    made = operator.post(
        "/api/v1/tax-rates",
        {"name": "VAT", "percentage": "19", "mode": "exclusive", "country": "DE"},
        format="json",
    )
    assert made.status_code == 201
    assert made.json()["percentage"] == "19"
    rate: str = made.json()["id"]
    taxed = operator.put(
        "/api/v1/organisations/acme/taxes", {"rates": [rate]}, format="json"
    ).json()
    assert [each["name"] for each in taxed["rates"]] == ["VAT"]
    return rate


def test_who_computes_an_organisations_taxes_is_said_and_replaced(operator, world):
    at = "/api/v1/organisations/acme/taxes"
    operator.put("/api/v1/organisations/acme/billing-details", {"country": "DE"}, format="json")
    put_rate(operator)
    chosen = operator.put(at, {"rates": [], "computed_by": "stripe"}, format="json")
    assert chosen.json() == {"computed_by": "stripe", "rates": [], "exemption": None}
    put_rate(operator)
    told = operator.get(at).json()
    assert (told["computed_by"], len(told["rates"])) == ("rates", 1)


def test_an_invoice_is_read_whole_down_to_its_events_and_credited(operator, world):
    tenant, prices = world
    put_rate(operator)
    details = {
        "name": "Acme GmbH",
        "address": "Straße 1\n10243 Berlin",
        "country": "DE",
        "tax_ids": [{"type": "eu_vat", "value": "DE123456789"}],
        "purchase_order": "PO-7",
    }
    assert (
        operator.put("/api/v1/organisations/acme/billing-details", details, format="json").json()
        == details
    )
    events = [used(tenant, prices, utc(10, 1 + n), tokens_in=100_000) for n in range(5)]
    ingest(*events)
    invoice = close_period(tenant.id, utc(11, 1))
    with tenant_scope(tenant.id):
        advance(invoice.id, News("open", clock.now()))
    base = f"/api/v1/organisations/acme/invoices/{invoice.id}"

    whole = operator.get(base).json()
    assert (whole["subtotal"], whole["tax"], whole["total"], whole["due"]) == (
        "1.05", "0.20", "1.25", "1.25",
    )  # fmt: skip
    assert whole["buyer"]["name"] == "Acme GmbH"
    assert whole["purchase_order"] == "PO-7"
    tokens, requests = whole["lines"]
    assert (tokens["quantity"], tokens["amount"], tokens["late"]) == ("500000", "1.00", False)

    rows = list(csv.DictReader(io.StringIO(operator.get(f"{base}/csv").content.decode())))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(whole["total"])
    usage = b"".join(operator.get(f"{base}/usage.csv").streaming_content).decode()
    assert len(list(csv.DictReader(io.StringIO(usage)))) == 2 * 5
    assert operator.get(f"{base}/pdf").content.startswith(b"%PDF")

    first = operator.get(f"{base}/lines/{tokens['uid']}/events?limit=3").json()
    assert (first["events_total"], first["units_total"], first["agrees"]) == (5, 500_000, True)
    cursor = first["next_cursor"]
    second = operator.get(f"{base}/lines/{tokens['uid']}/events?limit=3&cursor={cursor}").json()
    assert second["next_cursor"] is None
    assert [e["request_id"] for e in first["events"] + second["events"]] == [
        str(event.request_id) for event in events
    ]
    text = b"".join(operator.get(f"{base}/lines/{tokens['uid']}/events.csv").streaming_content)
    assert text.decode().count("\n") == 1 + 5

    for address in ("organisations/acme/requests", "requests"):
        request = operator.get(f"/api/v1/{address}/{events[0].request_id}").json()
        assert {(line["line"], line["units"]) for line in request["billed_on"]["lines"]} == {
            (tokens["uid"], 100_000),
            (requests["uid"], 1),
        }

    asked = {
        "reason": "billing_error",
        "idempotency_key": "k",
        "lines": [{"line": tokens["uid"], "quantity": "250000"}],
    }
    made = operator.post(f"{base}/credit-notes", asked, format="json")
    assert made.status_code == 201
    note = made.json()
    assert (note["subtotal"], note["tax"], note["total"]) == ("0.50", "0.10", "0.60")
    assert note["effect"] == "lowers_due"
    assert operator.post(f"{base}/credit-notes", asked, format="json").json() == note
    address = f"/api/v1/organisations/acme/credit-notes/{note['id']}"
    assert operator.get(address).json() == note
    assert operator.get(f"{address}/pdf").content.startswith(b"%PDF")
    assert operator.get("/api/v1/organisations/acme/credit-notes").json()[0]["id"] == note["id"]
    assert operator.get(base).json()["due"] == "0.65"


REFUSED = [
    ("get", "invoices/{nobody}", None, 404, "invoice_not_found"),
    ("get", "invoices/{nobody}/pdf", None, 404, "invoice_not_found"),
    ("get", "invoices/{nobody}/usage.csv", None, 404, "invoice_not_found"),
    ("get", "invoices/{nobody}/lines/{nobody}/events", None, 404, "line_not_found"),
    ("get", "invoices/{nobody}/lines/{nobody}/events.csv", None, 404, "line_not_found"),
    ("get", "invoices/{nobody}/lines/{nobody}/events?limit=0", None, 400, "invalid_limit"),
    ("get", "invoices/{nobody}/lines/{nobody}/events?cursor=x", None, 400, "invalid_cursor"),
    ("get", "credit-notes/{nobody}", None, 404, "credit_note_not_found"),
    ("post", "invoices/{nobody}/credit-notes",
     {"reason": "goodwill", "idempotency_key": "k"}, 404, "invoice_not_found"),
    ("post", "invoices/{nobody}/credit-notes", {"reason": "no"}, 400, "invalid"),
    ("put", "taxes", {"rates": ["{nobody}"]}, 404, "tax_rate_not_found"),
    ("put", "taxes", {"rates": [], "exemption": {"kind": "no", "reason": "x"}}, 400, "invalid"),
    ("put", "taxes", {"rates": [], "computed_by": "stripe"}, 409, "tax_country_missing"),
    ("put", "taxes", {"rates": ["{nobody}"], "computed_by": "stripe"}, 400, "tax_rates_invalid"),
    ("put", "taxes", {"rates": [], "computed_by": "us"}, 400, "invalid"),
    *[
        ("post", "invoices/{nobody}/credit-notes",
         {"reason": "other", "idempotency_key": "k",
          "lines": [{"line": str(NOBODY), "amount": amount}]}, 400, "credit_amount_invalid")
        for amount in ("1e17x", "0.001", "1e24", "0.0000000000001", "NaN")
    ],
    ("post", "invoices/{nobody}/credit-notes",
     {"reason": "other", "idempotency_key": "k",
      "lines": [{"line": str(NOBODY), "amount": "99999999999999999"}]}, 404, "invoice_not_found"),
    ("put", "billing-details", {"country": "D1"}, 400, "billing_details_invalid"),
    ("put", "billing-details", {"tax_ids": [{"type": "eu_vat", "value": "1"}]}, 400,
     "billing_details_invalid"),
]  # fmt: skip


def test_what_cannot_be_done_is_a_problem_with_a_code(operator, world):
    for method, address, body, status, code in REFUSED:
        if body and "rates" in body:
            body = body | {"rates": [each.format(nobody=NOBODY) for each in body["rates"]]}
        path = f"/api/v1/organisations/acme/{address.format(nobody=NOBODY)}"
        answer = (
            getattr(operator, method)(path, body, format="json") if body else operator.get(path)
        )
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer["Content-Type"].startswith("application/problem+json")


def test_nobody_enters_without_an_operator_key(world):
    base = f"/api/v1/organisations/acme/invoices/{NOBODY}"
    for path in (base, f"{base}/pdf", f"{base}/csv", "/api/v1/tax-rates"):
        assert APIClient().get(path).status_code == 401
