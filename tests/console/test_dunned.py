"""An operator says in the console what is done about unpaid invoices, and records payments."""

from datetime import timedelta

import pytest
from django.urls import reverse

from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.payments.by_hand import issue, record_payment
from billing.payments.dun import dun
from billing.payments.dunning_policy import SHIPPED, policy
from billing.payments.models import DunningOverride, DunningPolicy, RecordedPayment
from billing.payments.terms import set_terms, terms
from meterplane.kernel import clock
from tenants.scoping import system_scope, tenant_scope
from tests.billing.world import ingest, publish_prices, used

DAYS = {"charge_days": "2, 4", "mail_days": "0", "suspend_day": "9", "end": "keep_open"}


@pytest.fixture
def overdue(organisation) -> Invoice:
    """A manual invoice over 1.50 that is past its day."""
    with tenant_scope(organisation.id):
        set_terms("manual", 7, by="test")
    ingest(used(organisation, publish_prices(), clock.now(), requests=150))
    invoice = close_period(organisation.id, clock.now())
    issue(organisation.id, invoice.id)
    with clock.frozen(clock.now() + timedelta(days=8)):
        dun(lambda: pytest.fail("no provider is asked"))
    return invoice


def test_policies_are_set_by_forms_changed_and_deleted(operator, organisation):
    page = reverse("console:payments_dunningpolicy_add")
    assert 'value="3, 5, 7"' in operator.get(page).text
    none_yet = operator.get(reverse("console:payments_dunningpolicy_changelist")).text
    assert "the shipped one holds: charge 3, 5, 7 · mail 0, 3, 7, 14 · suspend 14" in none_yet
    assert operator.post(page, DAYS).status_code == 302
    assert operator.get(page).status_code == 403
    own = reverse("console:payments_dunningoverride_add")
    said = {"tenant": str(organisation.id), **DAYS, "mail_days": "0, 5"}
    assert operator.post(own, said).status_code == 302
    with tenant_scope(organisation.id):
        assert (policy()[0].mail_days, policy()[1]) == ((0, 5), "organisation")
        row = DunningOverride.objects.get()
    change = reverse("console:payments_dunningoverride_change", args=[row.pk])
    assert 'value="0, 5"' in operator.get(change).text
    assert operator.post(change, DAYS | {"charge_days": ""}).status_code == 302
    with tenant_scope(organisation.id):
        assert policy()[0].charge_days == ()
    listed = operator.get(reverse("console:payments_dunningoverride_changelist")).text
    assert "charge never · mail 0 · suspend 9" in listed
    delete = reverse("console:payments_dunningoverride_delete", args=[row.pk])
    assert operator.post(delete, {"post": "yes"}).status_code == 302
    with tenant_scope(organisation.id):
        assert (policy()[0].charge_days, policy()[1]) == ((2, 4), "installation")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mail_days": "9"}, "after at least one mail"),
        ({"charge_days": "soon"}, "whole numbers"),
        ({"end_day": "40"}, "goes with mark_uncollectible"),
    ],
)
def test_what_the_verb_would_refuse_is_refused_in_the_form(operator, organisation, wrong, said):
    answer = operator.post(reverse("console:payments_dunningpolicy_add"), DAYS | wrong)
    assert (answer.status_code, said in answer.text) == (200, True)
    with system_scope("test"):
        assert not DunningPolicy.objects.exists()
    assert SHIPPED.mail_days == (0, 3, 7, 14)


def test_how_an_organisation_pays_is_set_by_a_form(operator, organisation):
    page = reverse("console:tenants_organisation_change_terms", args=[organisation.id])
    assert "Charge automatically" in operator.get(page).text
    said = {"method": "send_invoice", "days_until_due": "30"}
    assert operator.post(page, said).status_code == 302
    with tenant_scope(organisation.id):
        assert (terms().method, terms().days_until_due) == ("send_invoice", 30)
    assert operator.post(page, said | {"days_until_due": "-1"}).status_code == 200


def test_cases_say_what_is_next_and_a_payment_is_recorded_once(operator, overdue):
    cases = operator.get(reverse("console:payments_dunningcase_changelist")).text
    assert "$1.50" in cases
    assert "the service is suspended until it is paid" in cases
    sent = operator.get(reverse("console:payments_dunningstep_changelist")).text
    assert "told owner@acme.example" in sent
    page = reverse("console:invoicing_invoice_record_payment", args=[overdue.id])
    assert "$1.50 is left to pay" in operator.get(page).text
    wire = {"amount": "1.50", "paid_on": "2026-01-02", "reference": "wire"}
    assert "at most 2 decimals" in operator.post(page, wire | {"amount": "1.505"}).text
    for _ in range(2):
        assert operator.post(page, wire).status_code == 302
    with tenant_scope(overdue.tenant_id):
        assert RecordedPayment.objects.get().recorded_by == "operator op@example.com"
        assert Invoice.objects.get(id=overdue.id).status == "paid"


def test_a_recorded_payment_is_taken_back_with_a_reason(operator, overdue):
    with tenant_scope(overdue.tenant_id):
        paid = record_payment(
            overdue.id, amount_minor=150, paid_on=clock.now().date(), reference="wire", by="test"
        )
    page = reverse("console:payments_recordedpayment_take_back", args=[paid.id])
    assert "was none after all" in operator.get(page).text
    assert operator.post(page, {"reason": ""}).status_code == 200
    for _ in range(2):
        assert operator.post(page, {"reason": "it bounced"}).status_code == 302
    with tenant_scope(overdue.tenant_id):
        assert Invoice.objects.get(id=overdue.id).status == "open"
        assert RecordedPayment.objects.get(takes_back=paid.id).recorded_by == (
            "operator op@example.com"
        )
    listed = operator.get(reverse("console:payments_recordedpayment_changelist")).text
    assert "\u2212$1.50" in listed
    mails = operator.get(reverse("console:payments_dunningstep_changelist")).text
    assert "told owner@acme.example" in mails
