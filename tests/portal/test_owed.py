"""A customer reads what is owed, what happens next and when, and how to pay."""

from datetime import timedelta

from billing.invoicing.close import close_period
from billing.payments.by_hand import issue, record_payment
from billing.payments.dun import dun
from billing.payments.terms import set_terms
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.world import ingest, publish_prices, used


def test_a_banner_says_what_is_owed_until_it_is_paid(owner, organisation, settings):
    settings.SELLER_BANK_DETAILS = "IBAN DE02"
    with tenant_scope(organisation.id):
        set_terms("manual", 7, by="test")
    ingest(used(organisation, publish_prices(), clock.now(), requests=150))
    invoice = close_period(organisation.id, clock.now())
    issue(organisation.id, invoice.id)
    with tenant_scope(organisation.id):
        record_payment(
            invoice.id, amount_minor=100, paid_on=clock.now().date(), reference="part", by="test"
        )
    with clock.frozen(clock.now() + timedelta(days=8)):
        dun(lambda: 1 / 0)
    for page in ("/", "/billing/"):
        text = owner.get(page).text
        assert "is not paid:" in text
        assert "the service is suspended until it is paid" in text
        assert "How to pay is on the invoice" in text
    assert owner.get(f"/billing/{invoice.id}/pdf/").status_code == 200
    shown = owner.get(f"/billing/{invoice.id}/").text
    for said in ("$0.50 is due", "$1.00 arrived; $0.50 is left", "IBAN DE02"):
        assert said in shown
    billing = owner.get("/billing/").text
    assert "an invoice is due 7 days after it is issued" in billing
    assert not [said for said in ("Add credit", "Add a card", "auto-reload") if said in billing]
    with tenant_scope(organisation.id):
        record_payment(
            invoice.id, amount_minor=50, paid_on=clock.now().date(), reference="wire", by="test"
        )
    assert "is not paid:" not in owner.get("/billing/").text
