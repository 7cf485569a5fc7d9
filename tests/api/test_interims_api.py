"""Thresholds of interim invoices through the control API, and what becomes of them there."""

import pytest
from rest_framework.test import APIClient

from billing.invoicing.close import close_period
from billing.invoicing.interim import make_interim
from meterplane.kernel import clock
from tenants.keys import issue_operator_key
from tests.billing.world import ingest, publish_prices, used, utc

pytestmark = pytest.mark.django_db
AT = "/api/v1/organisations/acme/interim-threshold"


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


@pytest.fixture
def acme(onboard):
    with clock.frozen(utc(11, 1)):
        return onboard("acme")


def test_a_threshold_is_set_read_and_unset(operator, acme, settings):
    none = {"amount": None, "currency": "USD", "origin": "default"}
    assert operator.get(AT).json() == none
    set_to = operator.put(AT, {"amount": "499.5"}, format="json")
    assert set_to.json() == {"amount": "499.50", "currency": "USD", "origin": "organisation"}
    settings.INTERIM_THRESHOLDS = {"USD": "20"}
    never = operator.put(AT, {"amount": None}, format="json").json()
    assert never == {"amount": None, "currency": "USD", "origin": "organisation"}
    default = {"amount": "20.00", "currency": "USD", "origin": "default"}
    assert operator.delete(AT).json() == default
    assert operator.get(AT).json() == default


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"amount": "0"}, 400, "amount"),
        ({"amount": "1.234"}, 400, "amount"),
        ({"amount": "much"}, 400, "amount"),
        ({}, 400, "amount"),
        ({"amount": ["5"]}, 400, "amount"),
    ],
)
def test_what_is_no_threshold_is_refused(operator, acme, body, status, field):
    answer = operator.put(AT, body, format="json")
    assert answer.status_code == status
    assert field in answer.text


def test_an_interim_invoice_is_read_as_one_and_its_month_takes_it_back(operator, acme):
    with clock.frozen(utc(11, 24, 12)):
        prices = publish_prices()
        operator.put(AT, {"amount": "1"}, format="json")
        ingest(used(acme, prices, utc(11, 2), requests=150))
        made = make_interim(acme.id)
        upcoming = operator.get("/api/v1/organisations/acme/invoices/upcoming").json()
        assert (upcoming["total"], upcoming["already_invoiced"]) == ("0.00", "1.50")
    with clock.frozen(utc(12, 2)):
        close_period(acme.id, utc(12, 1))
    listed = operator.get("/api/v1/organisations/acme/invoices").json()
    assert [(each["kind"], each["total"]) for each in listed] == [
        ("period", "0.00"),
        ("interim", "1.50"),
    ]
    of_month = operator.get(f"/api/v1/organisations/acme/invoices/{listed[0]['id']}").json()
    assert of_month["status"] == "draft"
    assert [(line["kind"], line["interim"], line["amount"]) for line in of_month["lines"]] == [
        ("usage", None, "1.50"),
        ("interim", str(made.id), "-1.50"),
    ]
