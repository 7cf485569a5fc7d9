"""Operators see disputes with their deadlines in the console and through the control API, as JSON
and as CSV; a tenant is told in its portal."""
# ruff: noqa: F811 (fixtures are imported)

import csv
import io
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from billing.payments.dispute_models import Dispute
from billing.payments.disputed import LOSS_TOLD_FOR, disputes_told
from billing.payments.disputes import mirror_dispute
from meterplane.console.disputed import open_disputes
from meterplane.kernel import clock
from tenants.keys import issue_operator_key
from tenants.scoping import system_scope, tenant_scope
from tests.billing.payments.conftest import (  # noqa: F401
    billed,
    prices,
    sandbox,
    stripe,
    there,
)
from tests.billing.payments.disputing import Bank, dispute_of
from tests.billing.payments.rig import read
from tests.billing.payments.test_credit_notes import paid

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "console:payments_dispute_changelist"


@pytest.fixture
def api() -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def parked() -> Dispute:
    with system_scope("test"):
        row: Dispute = Dispute.objects.create(
            provider="stripe", provider_dispute_id="du_parked", charge_id="ch_1", currency="USD",
            amount_minor=500, reason="fraudulent", status="under_review", opened_at=clock.now(),
            note="=Payment pi_1, of no customer of ours, is none of ours.",
        )  # fmt: skip
        return row


def test_an_operator_sees_disputes_and_when_evidence_is_due(
    organisation,
    billed,
    stripe,
    there,
    operator,
    api,
):
    with system_scope("test"):
        assert open_disputes() == []
    bank, invoice = Bank(there, stripe), paid(organisation, billed, stripe)
    invoice = read(organisation.id, invoice)  # with its number
    their_id = bank.disputes(bank.charge(organisation, invoice), amount=100)
    dispute = dispute_of(their_id)
    due = f"{dispute.evidence_due_at:%Y-%m-%d %H:%M:%S}"
    with system_scope("test"):
        [told] = open_disputes()
        with clock.frozen(dispute.evidence_due_at - timedelta(days=2)):
            [alarmed] = open_disputes()
    assert (told["value"], told["note"], told["alarm"]) == ("1", f"evidence is due by {due}", "")
    assert alarmed["alarm"] == told["note"]
    parked()
    assert "1 of payments that are not known" in operator.get(reverse("console:index")).text

    page = operator.get(reverse(LIST)).text
    assert page.index(their_id) < page.index("du_parked")  # what must be answered comes first
    for said in (due, "Needs an answer", "$1.00", invoice.number, "not known"):
        assert said in page, said
    only = operator.get(reverse(LIST) + "?state=parked").text
    assert "du_parked" in only
    assert their_id not in only
    one = operator.get(reverse("console:payments_dispute_change", args=[dispute.id])).text
    for said in ("Withdrawn", "Fee charged", "$15.00"):
        assert said in one, said

    rows = api.get("/api/v1/disputes").json()
    assert [each["provider_dispute_id"] for each in rows] == [their_id, "du_parked"]
    mine, stray = rows
    assert (mine["organisation"], mine["amount"], mine["withdrawn"]) == ("acme", "1.00", "1.00")
    assert mine["fees"] == [{"amount": "15.00", "currency": "USD"}]
    assert mine["invoice_number"] == invoice.number
    assert mine["evidence_due_at"] == f"{dispute.evidence_due_at:%Y-%m-%dT%H:%M:%SZ}"
    assert (stray["organisation"], stray["invoice"]) == (None, None)
    assert operator.get(reverse("console:payments_dispute_as_json")).json() == rows
    for text in (
        api.get("/api/v1/disputes?format=csv").content.decode(),
        operator.get(reverse("console:payments_dispute_as_csv")).content.decode(),
    ):
        first, second = csv.DictReader(io.StringIO(text))
        assert (first["id"], first["fees"], first["lost"]) == (mine["id"], "15.00 USD", "0.00")
        assert first["evidence_due_at"] == mine["evidence_due_at"]
        assert second["note"].startswith("'=")  # no formula for a spreadsheet

    detail = api.get(f"/api/v1/disputes/{mine['id']}").json()
    assert [(each["kind"], each["amount"]) for each in detail["movements"]] == [
        ("withdrawn", "1.00"), ("fee_charged", "15.00"),
    ]  # fmt: skip
    assert api.get("/api/v1/organisations/acme/disputes").json() == [mine]
    assert api.get("/api/v1/disputes?state=parked").json() == [stray]
    assert api.get("/api/v1/disputes?state=closed").json() == []
    assert api.get("/api/v1/disputes?state=lost").json()["code"] == "state_unknown"
    gone = api.get(f"/api/v1/disputes/{invoice.id}")
    assert (gone.status_code, gone.json()["code"]) == (404, "dispute_not_found")
    assert APIClient().get("/api/v1/disputes").status_code == 401


def test_a_tenant_is_told_that_a_payment_is_disputed(
    organisation,
    onboard,
    billed,
    stripe,
    there,
):
    bank, invoice = Bank(there, stripe), paid(organisation, billed, stripe)
    invoice = read(organisation.id, invoice)  # with its number
    client = Client()
    client.force_login(organisation.owner, backend="django.contrib.auth.backends.ModelBackend")
    pages = ("/billing/", f"/billing/{invoice.id}/")
    assert all("disputed" not in client.get(page).text for page in pages)
    their_id = bank.disputes(bank.charge(organisation, invoice), amount=100)
    said = f"that you paid for invoice {invoice.number}"
    for page in pages:
        shown = client.get(page).text
        assert "A payment is disputed" in shown
        assert said in shown
        assert "$1.00" in shown
    other = onboard("other")
    stranger = Client()
    stranger.force_login(other.owner, backend="django.contrib.auth.backends.ModelBackend")
    assert "disputed" not in stranger.get("/billing/").text
    bank.decides(their_id, "won")
    mirror_dispute(their_id, stripe)
    assert all("A payment is disputed" not in client.get(page).text for page in pages)


def test_a_tenant_is_told_for_a_month_that_a_bank_gave_a_payment_back(
    organisation, billed, stripe, there
):
    bank, invoice = Bank(there, stripe), paid(organisation, billed, stripe)
    client = Client()
    client.force_login(organisation.owner, backend="django.contrib.auth.backends.ModelBackend")
    their_id = bank.disputes(bank.charge(organisation, invoice))
    bank.decides(their_id, "lost")
    mirror_dispute(their_id, stripe)
    for page in ("/billing/", f"/billing/{invoice.id}/"):
        shown = client.get(page).text
        assert "Your bank returned a payment to you" in shown
        assert "nothing more is charged for it" in shown
        assert "tell your bank" not in shown
    with clock.frozen(clock.now() + LOSS_TOLD_FOR), tenant_scope(organisation.id):
        assert disputes_told() == []
