"""A customer sees what was invoiced before the month is over, and what is left."""

import pytest

from billing.invoicing.interim import make_interim
from billing.invoicing.thresholds import set_threshold
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.world import ingest, publish_prices, used

pytestmark = pytest.mark.django_db


def test_an_interim_invoice_is_marked_and_the_running_month_is_less_by_it(owner, organisation):
    prices = publish_prices()
    with tenant_scope(organisation.id):
        set_threshold("1", by="test")
    ingest(used(organisation, prices, clock.now(), requests=150))
    made = make_interim(organisation.id)
    listed = owner.get("/billing/").text
    assert ">interim</span>" in listed
    assert "1.50" in listed
    assert "of it already invoiced" in listed
    page = owner.get(f"/billing/{made.id}/").text
    assert ">interim</span>" in page
    assert "its own invoice takes this one back" in page
