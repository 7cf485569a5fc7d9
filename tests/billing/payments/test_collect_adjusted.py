"""Lines with tiers, and an invoice that gives money back, stand at the provider to the cent."""

from datetime import timedelta

import pytest

from billing.invoicing.close import close_period
from billing.invoicing.models import InvoiceLine
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.invoicing.test_adjustments import publish_entries, requests
from tests.billing.payments.rig import read
from tests.billing.rating.agreements import VOLUME
from tests.billing.world import ingest, used

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_repricing_below_zero_is_credit_that_the_next_invoice_uses(organisation, stripe, there):
    version = publish_entries(requests(VOLUME, "Calls"))
    attach_test_card(organisation.id, stripe)
    # Two months ago, so that each period is a month of its own.
    now = clock.now()
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    in_last_month = this_month - timedelta(days=3)
    ingest(used(organisation, version, in_last_month, requests=900))
    first = close_period(organisation.id, this_month)
    ingest(used(organisation, version, in_last_month, "minilm", requests=300))
    second = close_period(organisation.id, now)
    assert first is not None
    assert second is not None
    assert (first.total_minor, second.total_minor) == (900, -300)
    for invoice in (first, second):
        outcome = collect(organisation.id, invoice.id, stripe)
        assert (outcome.status, outcome.note) == ("paid", "")
    assert read(organisation.id, second).collection_state == "done"
    theirs = sorted(there.invoices(organisation), key=lambda each: -each.total)
    assert [(each.total, each.amount_due, each.ending_balance) for each in theirs] == [
        (900, 900, 0),
        (-300, 0, -300),
    ]
    with tenant_scope(organisation.id):
        ours = [
            (str(line.id), line.amount_minor, line.description)
            for line in InvoiceLine.objects.filter(invoice_id=second.id)
        ]
    assert sorted(there.lines(theirs[1].id)) == sorted(ours)
