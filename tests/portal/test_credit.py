"""The billing page shows what credit is left, what for, until when, and what became of the rest."""

import csv
import io
from datetime import timedelta

import pytest

from billing.credits.refund import refund_credit
from billing.invoicing.close import close_period
from meterplane.kernel import clock
from meterplane.policy.credit_shown import shown_credit
from meterplane.policy.hold_to_credit import hold_to_credit
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.portal import history
from tests.portal.test_usage import tables


@pytest.fixture
def customer(third_of_november, organisation):
    """One with usage in November."""
    history.offer()
    history.live_through(organisation, days=2)
    return organisation


def test_without_credit_the_card_says_what_would_be_there(owner, organisation):
    history.offer()
    page = owner.get("/billing/").text
    assert "No credit" in page
    assert "What became of it" not in page


def test_credit_is_shown_with_its_scope_and_expiry_in_the_order_of_drawing(owner, customer):
    give(customer, 50_000, "for a friend", models_only=("tiny-lm",), meters_only=("input_tokens",))
    give(customer, 1_050, "spring offer", kind="purchased", expires_at=clock.now() + timedelta(9))
    page = owner.get("/billing/")
    assert "$510.50" in page.text
    rows = next(table for table in tables(page) if "Pays for" in table[0])[1:]
    assert [row[0] for row in rows] == ["Purchasedspring offer", "Promotionalfor a friend"]
    assert [row[1] for row in rows] == ["All models", "tiny-lmInput tokens"]
    assert rows[0][2] == "12 Nov 202615:20:00"
    assert rows[1][2] == "never"
    assert [row[3] for row in rows] == ["$10.50of $10.50", "$500.00of $500.00"]


def test_what_became_of_credit_leads_to_the_invoice_that_drew_it(owner, customer):
    bought = give(customer, 50_000, "bought", kind="purchased")
    with clock.frozen(clock.now() + timedelta(seconds=1)):
        invoice = close_period(customer.id, clock.now())
    with clock.frozen(clock.now() + timedelta(seconds=2)):
        refund_credit(tenant_id=customer.id, grant_id=bought)
        assert invoice is not None
        page = owner.get("/billing/")
        rows = next(table for table in tables(page) if "What" in table[0])[1:]
        assert [row[2] for row in rows] == ["Refunded", "Drawn"]
        assert f"/billing/{invoice.id}/" in page.text
        assert "used up or has expired" in page.text
        lines = tables(owner.get(f"/billing/{invoice.id}/"))[0]
        assert lines[-2][0] == "Purchased credit: bought"
        assert lines[-2][-1].startswith("−$")  # noqa: RUF001 (a true minus sign is meant)
        assert lines[-1][-1] == "$0.00"
        sheet = owner.get(f"/billing/{invoice.id}/?format=csv").text
    *_, last = csv.DictReader(io.StringIO(sheet))
    assert (last["kind"], last["quantity"]) == ("credit", "0")


def test_one_organisation_does_not_see_the_credit_of_another(owner, organisation, onboard):
    give(onboard("globex"), 700, "theirs")
    assert "theirs" not in owner.get("/billing/").text


def test_who_is_held_to_credit_sees_what_is_still_to_be_spent(owner, customer):
    assert "Still to be spent" not in owner.get("/billing/").text
    hold_to_credit(customer.id)
    give(customer, 50_000)
    page = owner.get("/billing/").text
    assert "Still to be spent" in page
    with tenant_scope(customer.id):
        shown = shown_credit()
    assert shown.spent_nano > 0
    assert shown.spendable_nano + shown.spent_nano == 500 * 10**9
