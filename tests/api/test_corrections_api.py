"""An operator voids, writes off and pays back through the control API and in the console."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import Refund
from meterplane.kernel.ids import uuid7
from tenants.keys import issue_operator_key
from tenants.scoping import tenant_scope
from tests.billing.payments.conftest import billed, prices, sandbox, stripe  # noqa: F401
from tests.billing.payments.rig import read
from tests.console.conftest import operator as staff  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)
BASE = "/api/v1/organisations/acme/invoices"


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def test_an_invoice_is_written_off_and_voided(organisation, billed, stripe, operator):  # noqa: F811
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    for act, status in (("write-off", "uncollectible"), ("void", "void")):
        asked = operator.post(f"{BASE}/{invoice.id}/{act}", {"reason": "gone"}, format="json")
        assert (asked.status_code, asked.json()["collection_state"]) == (202, "pending")
        assert "gone" in asked.json()["collection_note"]
        tasks.sweep()
        assert read(organisation.id, invoice).status == status
    again = operator.post(f"{BASE}/{invoice.id}/void", {"reason": "gone"}, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "invoice_not_open")


def test_money_is_paid_back(organisation, billed, stripe, operator):  # noqa: F811
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    body = {"amount": "1.00", "reason": "sorry", "idempotency_key": "k"}
    made = [operator.post(f"{BASE}/{invoice.id}/refunds", body, format="json") for _ in range(2)]
    assert [each.status_code for each in made] == [201, 201]
    assert made[0].json() == made[1].json()
    tasks.sweep()
    (shown,) = operator.get(f"{BASE}/{invoice.id}/refunds").json()
    assert (shown["state"], shown["amount"], shown["goodwill"]) == ("succeeded", "1.00", "1.00")
    for change, status, code in (
        ({"amount": "2.02"}, 409, "refund_exceeds_payment"),
        ({"amount": "1.001"}, 400, "amount_invalid"),
        ({"amount": "1e99"}, 400, "amount_invalid"),
        ({"amount": "NaN"}, 400, "amount_invalid"),
        ({"amount": "-1"}, 409, "refund_exceeds_payment"),
        ({"reason": ""}, 400, "invalid"),
        ({"idempotency_key": "k", "amount": "0.5"}, 409, "idempotency_conflict"),
    ):
        refused = operator.post(
            f"{BASE}/{invoice.id}/refunds", body | {"idempotency_key": "x"} | change, format="json"
        )
        assert (refused.status_code, refused.json()["code"]) == (status, code), change
    nobody = operator.post(
        f"{BASE}/{uuid7()}/refunds", body | {"idempotency_key": "n"}, format="json"
    )
    assert (nobody.status_code, nobody.json()["code"]) == (404, "invoice_not_found")


def test_the_console_asks_why_and_remembers_who(
    organisation,
    billed,  # noqa: F811
    stripe,  # noqa: F811
    staff: Client,  # noqa: F811
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    page = reverse("console:invoicing_invoice_refund", args=[invoice.pk])
    assert "corrects no invoice" in staff.get(page).text
    form = {"reason": "sorry", "amount": "1.00", "named": "console:1"}
    assert "at most 2 decimals" in staff.post(page, form | {"amount": "1.005"}).text
    assert "2.01 USD is left" not in staff.post(page, form).text
    assert "is left to pay back" in staff.post(page, form | {"amount": "9", "named": "n"}).text
    with tenant_scope(organisation.id):
        (refund,) = Refund.objects.all()
    assert (refund.amount_minor, refund.reason) == (100, "sorry")
    shown = staff.get(reverse("console:payments_refund_change", args=[refund.pk])).text
    assert "$1.00" in shown
    void = reverse("console:invoicing_invoice_void", args=[invoice.pk])
    assert "cannot be voided" in staff.post(void, {"reason": "gone"}).text
    assert [each.change_message for each in LogEntry.objects.all()] == ["refund of $1.00: sorry"]
