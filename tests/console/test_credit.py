"""An operator grants credit in the console, once however often a form is sent, and looks at it."""

import re

import pytest
from django.urls import reverse

from billing.credits.models import CreditGrant
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked, give, remaining

ADD = "console:credits_creditgrant_add"
FORM = {
    "kind": "promotional", "amount": "12.50", "priority": "50", "effective_at_0": "",
    "effective_at_1": "", "expires_at_0": "", "expires_at_1": "", "rollover_max": "",
    "models_only": "minilm, tiny-lm", "meters_only": "", "reason": "welcome", "named": "form-1",
}  # fmt: skip


def test_credit_is_granted_by_a_form_once(operator, organisation):
    page = operator.get(reverse(ADD)).text
    assert re.search(r'name="named" value="console:[0-9a-f-]{36}"', page)
    form = FORM | {"tenant": str(organisation.id)}
    assert operator.post(reverse(ADD), form).status_code == 302
    assert operator.post(reverse(ADD), form).status_code == 302
    assert remaining(organisation) == {"welcome": 1_250}
    assert booked(organisation) == {"promotions": 1_250, "credits:promotional": -1_250}
    with tenant_scope(organisation.id):
        row = CreditGrant.objects.get()
    assert row.models_only == ["minilm", "tiny-lm"]
    assert row.created_by == "operator op@example.com"
    listed = operator.get(reverse("console:credits_creditgrant_changelist")).text
    assert "$12.50" in listed
    shown = operator.get(reverse("console:credits_creditgrant_change", args=[row.pk]))
    assert "welcome" in shown.text
    assert 'name="_save"' not in shown.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": "1.005"}, "at most 2 decimals"),
        ({"amount": "-1"}, "more than nothing"),
        ({"amount": ""}, "required"),
        ({"priority": "101"}, "0 (drawn first) to 100"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "in the future"),
        ({"rollover_max": "5"}, "never expires does not roll over"),
        ({"models_only": "minilm,minilm"}, "Name each once"),
    ],
)
def test_what_the_verb_would_refuse_is_refused_beside_its_field(
    operator, organisation, change, said
):
    form = FORM | {"tenant": str(organisation.id)} | change
    answer = operator.post(reverse(ADD), form)
    assert answer.status_code == 200
    assert said in answer.text
    assert remaining(organisation) == {}


def test_movements_and_recurring_credit_are_listed_and_nothing_is_changed(operator, organisation):
    give(organisation, 5, "x")
    for name in ("creditmovement", "creditrecurrence"):
        assert operator.get(reverse(f"console:credits_{name}_changelist")).status_code == 200
        assert operator.get(reverse(f"console:credits_{name}_add")).status_code == 403
    with tenant_scope(organisation.id):
        row = CreditGrant.objects.get()
    for act in ("change", "delete"):
        address = reverse(f"console:credits_creditgrant_{act}", args=[row.pk])
        assert operator.post(address, FORM).status_code == 403
