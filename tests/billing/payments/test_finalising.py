"""From a draft to an open invoice: what has begun is finalising, and is gone on with."""

from datetime import timedelta

import pytest
from django.db import IntegrityError

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.interim import make_interim
from billing.invoicing.models import Invoice
from billing.invoicing.printed import printed_invoice
from billing.invoicing.taxation import assign_rates, create_rate
from billing.invoicing.thresholds import set_threshold
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.run import LEASE
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.payments.rig import Faulty, Killed, read
from tests.billing.world import ingest, used

pytestmark = pytest.mark.django_db(transaction=True)


def statuses_on_the_way(tenant, invoice, stripe, at: int) -> tuple[str, str]:
    """The call the worker dies at, the `at`-th, and how the invoice stands then."""
    faulty = Faulty(stripe, at, after=False, fail=Killed)
    with pytest.raises(Killed):
        collect(tenant.id, invoice.id, faulty)
    now = read(tenant.id, invoice)
    assert (now.number is None) == (now.status in ("draft", "finalising"))
    return faulty.calls[-1], now.status


def test_an_invoice_is_finalising_from_the_first_call_for_it_until_it_is_open(
    onboard, billed, stripe
):
    def made(slug):
        tenant = onboard(slug)
        attach_test_card(tenant.id, stripe)
        return tenant, billed(tenant)

    whole = Faulty(stripe, 99, after=False, fail=Killed)
    tenant, invoice = made("acme")
    collect(tenant.id, invoice.id, whole)
    told = [
        statuses_on_the_way(*made(f"acme-{call}"), stripe, whole.calls.index(call) + 1)
        for call in ("draft", "finalise", "pay")
    ]
    assert told == [("draft", "finalising"), ("finalise", "finalising"), ("pay", "open")]


def test_the_sweep_goes_on_with_one_that_was_left_finalising(organisation, billed, stripe):
    invoice = billed(organisation)
    attach_test_card(organisation.id, stripe)
    assert statuses_on_the_way(organisation, invoice, stripe, 3)[1] == "finalising"
    with tenant_scope(organisation.id):
        assert printed_invoice(invoice.id).startswith(b"%PDF")
    assert all(verdict.holds for verdict in audit())  # it owes the ledger nothing yet
    with clock.frozen(clock.now() + LEASE + timedelta(seconds=1)):
        tasks.sweep()
    assert read(organisation.id, invoice).status == "paid"


def test_the_way_to_open_leads_through_finalising(organisation, billed):
    invoice = billed(organisation)
    seen = []
    with tenant_scope(organisation.id):
        for status in ("finalising", "finalising", "draft", "open", "finalising"):
            advance(invoice.id, News(status, clock.now()))
            seen.append(Invoice.objects.get().status)
    assert seen == ["finalising", "finalising", "finalising", "open", "open"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "open", "number": "X-1", "finalised_at": clock.now()},  # not finalising first
        {"status": "finalising", "number": "X-1", "finalised_at": clock.now()},
        {"status": "begun"},
    ],
)
def test_postgresql_refuses_another_way(organisation, billed, change):
    invoice = billed(organisation)
    with pytest.raises(IntegrityError), tenant_scope(organisation.id):
        Invoice.objects.filter(id=invoice.id).update(**change)


def test_interim_invoices_are_collected_like_any_and_with_the_same_cents(
    organisation, prices, stripe, there
):
    attach_test_card(organisation.id, stripe)
    rate = create_rate(name="VAT", percentage="19", mode="exclusive")
    with tenant_scope(organisation.id):
        assign_rates([rate.id])
        set_threshold("3", by="test")
    made = []
    for requests in (301, 402):
        at = clock.now() - timedelta(milliseconds=1)
        ingest(used(organisation, prices, at, requests=requests))
        made.append(make_interim(organisation.id))
        collect(organisation.id, made[-1].id, stripe)
    made.append(close_period(organisation.id, clock.now()))
    assert collect(organisation.id, made[-1].id, stripe).status == "paid"  # nothing is left of it
    # 7.03, and 19 % of that: 3.01 + 0.57, then 4.02 + 1.34 - 0.57.
    assert [each.total_minor for each in made] == [358, 479, 0]
    theirs = sorted(each.total for each in there.invoices(organisation))
    assert theirs == [358, 479]
    assert all(verdict.holds for verdict in audit())
