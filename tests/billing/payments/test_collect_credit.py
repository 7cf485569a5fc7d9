"""What credit pays of an invoice stands at Stripe too, and the customer is charged the rest."""

import pytest

from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from tests.billing.credits.rig import booked, give
from tests.billing.payments.rig import read
from tests.billing.payments.test_collect import assert_collected

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("credit", "charged"), [(100, 201), (250, 51)])
def test_the_customer_is_charged_what_credit_leaves(
    organisation, billed, stripe, there, credit, charged
):
    attach_test_card(organisation.id, stripe)
    give(organisation, credit, "welcome")
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    assert assert_collected(organisation, invoice, there).amount_paid == charged
    books = booked(organisation)
    assert books["payments"] == charged
    assert "receivable" not in books


def test_nothing_is_asked_of_stripe_where_credit_pays_for_everything(
    organisation, billed, stripe, there
):
    give(organisation, 500, "welcome")
    invoice = billed(organisation)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state) == ("paid", "done")
    assert read(organisation.id, invoice).number == "ACME-000001"
    assert there.invoices(organisation) == []
