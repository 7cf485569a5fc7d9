"""What a member is told of alerts on the first page: what was reached, of which limit, and when."""

import re
from html import unescape

import pytest

from meterplane.policy.models import Alert
from tenants.scoping import system_scope

pytestmark = pytest.mark.django_db
DOLLAR = 10**9


def raise_alert(tenant, threshold, **what):
    values = {
        "level": "organisation", "scope_id": tenant.id, "kind": "spend", "window": "month",
        "mode": "enforce", "label": "2026-11",
    }  # fmt: skip
    with system_scope("test"):
        return Alert.objects.create(tenant_id=tenant.id, threshold=threshold, **values | what)


def card_of(client) -> str:
    answer = client.get("/")
    assert answer.status_code == 200
    card = answer.content.decode().partition("<h2>Alerts</h2>")[2].partition("</section>\n")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", card)))


def test_without_alerts_the_page_says_what_they_are(owner):
    card = card_of(owner)
    assert "No alerts" in card
    assert "50, 80 or 100 % of a budget" in card


@pytest.mark.parametrize(
    ("threshold", "what", "said"),
    [
        ("80", {"used": 8 * DOLLAR, "amount": 10 * DOLLAR},
         "Spend per month 2026-11 80 % used $8.00 of $10.00"),
        ("100", {"used": 995 * DOLLAR, "amount": 1000 * DOLLAR, "hits": 1200},
         "Spend per month 2026-11 100 % used $995.00 of $1,000.00 · 1,200 requests refused"),
        ("balance", {"used": 9 * DOLLAR, "amount": 10 * DOLLAR, "window": "prepaid",
                     "label": "prepaid:1"}, "Prepaid balance Low $1.00 left"),
        ("hit", {"kind": "requests", "window": "minute", "label": "2026-11-29T11", "amount": 6000,
                 "hits": 1},
         "per minute 2026-11-29, 11:00 to 11:59 Limit hit limit 6,000 · 1 request refused"),
        ("hit", {"kind": "concurrency", "window": "at_once", "label": "2026-11-29T11", "amount": 5,
                 "hits": 7, "mode": "notify"},
         "Requests at once 2026-11-29, 11:00 to 11:59 Limit hit limit 5 · 7 requests above it"),
        ("hit", {"kind": "requests", "window": "second", "label": "2026-11-29T11", "hits": 2,
                 "mode": ""}, "11:00 to 11:59 Limit hit 2 requests refused"),
        ("50", {"kind": "total_tokens", "window": "day", "label": "2026-11-29", "used": 500,
                "amount": 1000}, "Tokens per day 2026-11-29 50 % used 500 of 1,000"),
    ],
)  # fmt: skip
def test_an_alert_is_told_in_words(owner, organisation, threshold, what, said):
    raise_alert(organisation, threshold, **what)
    assert said in card_of(owner)


def test_whose_limit_it_is_is_named(owner, organisation):
    raise_alert(
        organisation, "80", level="key_model", scope_id=organisation.key_id, model="tiny-lm",
        used=8, amount=10,
    )  # fmt: skip
    raise_alert(organisation, "80", level="project", scope_id=organisation.project_id, used=8)
    card = card_of(owner)
    assert "Spend per month tiny-lm Key first key · 2026-11 80 % used" in card
    assert "Spend per month Project Default · 2026-11 80 % used" in card


def test_another_tenants_alerts_are_not_shown(owner, onboard):
    raise_alert(onboard("neighbour"), "80", used=8, amount=10)
    assert "No alerts" in card_of(owner)


@pytest.mark.parametrize("role", ["viewer", "billing", "developer"])
def test_every_member_may_look(as_role, organisation, role):
    raise_alert(organisation, "hit", hits=3)
    assert "3 requests refused" in card_of(as_role(role))
