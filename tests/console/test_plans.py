"""An operator makes a plan and changes it; who is on it is bound when the page answers."""

import json
import re
from html import unescape

from django.test import Client
from django.urls import reverse

from tenants.limits import set_plan
from tenants.models import Plan
from tests.console.conftest import BACKEND
from tests.tenants.test_keys import compiled

RATE = {"level": "organisation", "kind": "requests", "window": "minute", "amount": 60}
GOLD = {
    "slug": "gold", "name": "Gold", "description": "More.", "limits": json.dumps([RATE]),
    "restrictions": '{"surfaces": ["openai.chat"], "models": null}',
}  # fmt: skip
ADD = "console:tenants_plan_add"


def page_of(plan: Plan) -> str:
    return reverse("console:tenants_plan_change", args=[plan.pk])


def limits_of(organisation) -> list[int]:
    return [each.amount for each in compiled(organisation.id, organisation.key_id).limits]


def test_a_plan_is_made_and_changed_for_all_who_are_on_it(operator, organisation):
    assert operator.post(reverse(ADD), GOLD).status_code == 302
    plan = Plan.objects.get(slug="gold")
    assert plan.limits == [RATE | {"burst": None, "mode": "enforce", "model": ""}]
    assert plan.restrictions == {"surfaces": ["openai.chat"]}
    set_plan(tenant_id=organisation.id, slug="gold")
    assert limits_of(organisation) == [60]
    assert compiled(organisation.id, organisation.key_id).surfaces == ["openai.chat"]
    changed = GOLD | {
        "limits": json.dumps([RATE | {"amount": 70}]), "slug": "other", "restrictions": "",
    }  # fmt: skip
    assert operator.post(page_of(plan), changed).status_code == 302
    assert limits_of(organisation) == [70]
    assert compiled(organisation.id, organisation.key_id).surfaces is None
    assert [each.slug for each in Plan.objects.order_by("slug")] == ["gold", "standard"]
    history = reverse("console:tenants_plan_history", args=[plan.pk])
    assert "Limits" in operator.get(history).text
    assert "Gold" in operator.get(reverse("console:tenants_plan_changelist")).text


FAULTS = [
    ("limits", "[", "This is not JSON"),
    ("limits", "{}", "Write a list"),
    ("limits", "[3]", "Limit 1 is not an object"),
    ("limits", json.dumps([RATE | {"window": "week"}]), "Limit 1, window: A limit of requests"),
    ("limits", json.dumps([RATE, RATE]), "Limit 2 says what another one says"),
    ("restrictions", "[", "Enter a valid JSON"),
    ("restrictions", '["models"]', "Restrictions are an object"),
    ("restrictions", '{"colours": []}', "There is no 'colours'"),
    ("restrictions", '{"surfaces": ["fax"]}', "surfaces: 'fax' is none of"),
    ("restrictions", '{"models": "tiny-lm"}', "models: Give a list of texts"),
    ("restrictions", '{"request_tokens_max": 1.5}', "Give a whole number"),
    ("name", "", "This field is required"),
    ("slug", "two words", "Enter a valid"),
    ("slug", "standard", "already exists"),
]


def test_a_fault_is_said_in_words_and_nothing_is_stored(operator, organisation):
    for field, typed, said in FAULTS:
        answer = operator.post(reverse(ADD), GOLD | {field: typed})
        assert answer.status_code == 200, typed
        assert said in unescape(re.sub(r"<[^>]+>", " ", answer.text))
        assert [each.slug for each in Plan.objects.all()] == ["standard"]


def test_a_customer_cannot_change_a_plan(organisation):
    customer = Client()
    customer.force_login(organisation.owner, backend=BACKEND)
    plan = Plan.objects.get(slug="standard")
    for path in (reverse(ADD), page_of(plan)):
        sent = customer.post(path, GOLD)
        assert sent.status_code == 302
        assert customer.get(sent["Location"]).status_code == 403
    assert [each.slug for each in Plan.objects.all()] == ["standard"]
