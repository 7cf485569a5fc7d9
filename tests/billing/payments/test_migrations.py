"""How unpaid invoices are followed up can be unmade, and made again over what is there by then."""

import pytest

from billing.invoicing.models import Invoice
from billing.payments import tasks
from billing.payments.terms import set_terms
from tenants.scoping import tenant_scope
from tests.billing.payments.rig import read
from tests.metering.test_migrations import migrate

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]


def test_dunning_is_unmade_and_made_again(organisation, billed, settings):
    settings.PAYMENT_PROVIDER = "none"
    invoice = billed(organisation)
    migrate("payments", "0008_carried")
    migrate("invoicing", "0011_carried")
    migrate()
    with tenant_scope(organisation.id):
        set_terms("manual", 14, by="test")
    tasks.sweep()
    assert read(organisation.id, invoice).status == Invoice.Status.OPEN
