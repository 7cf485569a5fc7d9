"""An operator sets an organisation's threshold of interim invoices in the console."""

from django.urls import reverse

from billing.invoicing.models import InterimThreshold
from billing.invoicing.thresholds import threshold
from tenants.scoping import tenant_scope

ADD = "console:invoicing_interimthreshold_add"


def test_a_threshold_is_set_and_replaced_by_a_form_and_deleted(operator, organisation):
    for amount, minor in (("500", 500_00), ("", None), ("499.50", 499_50)):
        form = {"tenant": str(organisation.id), "amount": amount}
        assert operator.post(reverse(ADD), form).status_code == 302
        with tenant_scope(organisation.id):
            assert threshold().amount_minor == minor
            row = InterimThreshold.objects.get()
    assert row.changed_by == "operator op@example.com"
    listed = operator.get(reverse("console:invoicing_interimthreshold_changelist")).text
    assert "$499.50" in listed
    delete = reverse("console:invoicing_interimthreshold_delete", args=[row.pk])
    assert operator.post(delete, {"post": "yes"}).status_code == 302
    with tenant_scope(organisation.id):
        assert threshold().origin == "default"


def test_what_the_verb_would_refuse_is_refused_beside_its_field(operator, organisation):
    form = {"tenant": str(organisation.id), "amount": "0.5"}
    answer = operator.post(reverse(ADD), form)
    assert answer.status_code == 200
    assert "1 to 1,000,000,000 USD" in answer.text
    with tenant_scope(organisation.id):
        assert not InterimThreshold.objects.exists()
