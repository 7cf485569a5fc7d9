"""How an organisation pays, payments by hand and dunning, through the control API."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from billing.invoicing.close import close_period
from billing.payments.by_hand import issue
from billing.payments.dun import dun
from billing.payments.dunning_policy import SHIPPED
from meterplane.kernel import clock
from tenants.keys import issue_operator_key
from tests.billing.world import ingest, publish_prices, used

pytestmark = pytest.mark.django_db
AT = "/api/v1/organisations/acme"
OWN = SHIPPED.document | {"suspend_day": None, "end": "mark_uncollectible", "end_day": 60}


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


@pytest.fixture
def overdue(operator, organisation) -> str:
    """The id of a manual invoice over 1.50 that is past its day."""
    terms = {"method": "manual", "days_until_due": 7}
    assert operator.put(f"{AT}/collection-terms", terms, format="json").json() == terms
    ingest(used(organisation, publish_prices(), clock.now(), requests=150))
    invoice = close_period(organisation.id, clock.now())
    issue(organisation.id, invoice.id)
    with clock.frozen(clock.now() + timedelta(days=8)):
        dun(lambda: pytest.fail("no provider is asked"))
    return str(invoice.id)


def test_terms_are_charged_automatically_until_something_else_is_said(operator, organisation):
    shipped = {"method": "charge_automatically", "days_until_due": 14}
    assert operator.get(f"{AT}/collection-terms").json() == shipped
    for body in ({"method": "cheque", "days_until_due": 1}, {"method": "manual"}, {}):
        assert operator.put(f"{AT}/collection-terms", body, format="json").status_code == 400


def test_a_policy_is_set_and_unset_for_one_and_for_all(operator, organisation):
    shipped = SHIPPED.document | {"origin": "shipped"}
    assert operator.get("/api/v1/dunning-policy").json() == shipped
    own = operator.put(f"{AT}/dunning-policy", OWN, format="json").json()
    assert own == OWN | {"origin": "organisation"}
    everyones = operator.put("/api/v1/dunning-policy", OWN, format="json").json()
    assert everyones == OWN | {"origin": "installation"}
    assert operator.delete(f"{AT}/dunning-policy").json() == everyones
    for wrong, field in (({"charge_days": [3, 3]}, "charge_days"), ({"end": "sue"}, "end")):
        refused = operator.put(f"{AT}/dunning-policy", OWN | wrong, format="json")
        assert (refused.status_code, field in refused.text) == (400, True)


def test_what_is_overdue_says_what_was_done_and_payments_end_it(operator, overdue):
    [one] = operator.get(f"{AT}/dunning").json()
    assert (one["invoice"], one["left"], one["steps"][0]["step"]) == (overdue, "1.50", "mail:0")
    assert one["next_act"].startswith("the service is suspended")
    wire = {"amount": "1", "paid_on": "2026-01-02", "reference": "wire 1"}
    at = f"{AT}/invoices/{overdue}/payments"
    first = operator.post(at, wire, format="json")
    assert (first.status_code, first.json()["left"]) == (201, "0.50")
    assert operator.post(at, wire, format="json").status_code == 200
    other = operator.post(at, wire | {"amount": "2"}, format="json")
    assert (other.status_code, other.json()["code"]) == (409, "payment_reference_taken")
    for wrong in ({"amount": "0.001"}, {"amount": "-1"}, {"paid_on": "x"}, {"reference": " "}):
        assert operator.post(at, wire | wrong, format="json").status_code == 400
    rest = operator.post(at, wire | {"amount": "0.5", "reference": "wire 2"}, format="json").json()
    assert (rest["status"], rest["left"]) == ("paid", "0.00")
    assert operator.get(at).json() == rest
    assert operator.get(f"{AT}/dunning").json() == []
    assert operator.get(AT).json()["standing"] == "active"


def test_payments_of_an_invoice_that_is_not_theirs_are_missing(operator, overdue, onboard):
    onboard("zeta")
    at = f"/api/v1/organisations/zeta/invoices/{overdue}/payments"
    wire = {"amount": "1", "paid_on": "2026-01-02", "reference": "wire 1"}
    assert operator.get(at).status_code == 404
    assert operator.post(at, wire, format="json").status_code == 404


def test_a_payment_is_taken_back_once_and_with_a_reason(operator, overdue):
    at = f"{AT}/invoices/{overdue}/payments"
    wire = {"amount": "1.5", "paid_on": "2026-01-02", "reference": "wire 1"}
    payment = operator.post(at, wire, format="json").json()["payments"][0]["id"]
    back = f"{at}/{payment}/take-back"
    for wrong in ({}, {"reason": " "}, {"reason": "x" * 201}):
        assert operator.post(back, wrong, format="json").status_code == 400
    first = operator.post(back, {"reason": "it bounced"}, format="json")
    assert (first.status_code, first.json()["status"], first.json()["left"]) == (
        201,
        "open",
        "1.50",
    )
    assert operator.post(back, {"reason": "again"}, format="json").status_code == 200
    shown = [
        (row["amount"], row["takes_back"], row["reason"])
        for row in operator.get(at).json()["payments"]
    ]
    assert shown == [("1.50", None, ""), ("-1.50", payment, "it bounced")]
    again = operator.post(at, wire, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "payment_taken_back")
    missing = operator.post(f"{at}/{overdue}/take-back", {"reason": "x"}, format="json")
    assert missing.status_code == 404
    assert operator.get(AT).json()["standing"] == "past_due"


def test_an_organisation_that_pays_by_transfer_buys_no_credit_online(
    operator, organisation, settings
):
    settings.STRIPE_API_KEY = "sk_test_0123456789abcdef"
    terms = {"method": "manual", "days_until_due": 7}
    assert operator.put(f"{AT}/collection-terms", terms, format="json").status_code == 200
    named = {"HTTP_IDEMPOTENCY_KEY": "one"}
    refused = operator.post(f"{AT}/top-ups", {"amount": "20"}, format="json", **named)
    assert (refused.status_code, refused.json()["code"]) == (409, "pays_by_hand")
