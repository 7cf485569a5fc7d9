"""An operator finds the alerts of everybody, by what was reached and whether it was delivered."""

import pytest
from django.urls import reverse

from meterplane.kernel import clock
from meterplane.policy.models import Alert
from tenants.scoping import system_scope

LIST = "console:policy_alert_changelist"


@pytest.fixture
def raised(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    values = {"level": "organisation", "window": "month", "mode": "enforce", "label": "2026-11"}
    with system_scope("test"):
        return [
            Alert.objects.create(
                tenant_id=acme.id, scope_id=acme.id, kind="spend", threshold="80",
                used=8_000_000_000, amount=10_000_000_000, **values,
            ),
            Alert.objects.create(
                tenant_id=globex.id, scope_id=globex.id, kind="requests", threshold="hit",
                amount=6000, hits=12, delivered_at=clock.now(),
                **values | {"window": "minute", "label": "2026-11-29T11"},
            ),
        ]  # fmt: skip


def test_alerts_of_everybody_are_listed_with_what_was_used(operator, raised):
    page = operator.get(reverse(LIST)).text
    for said in ("Acme", "80 % used", "organisation spend/month", "$8.00", "$10.00", "Globex",
                 "Limit hit", "requests/minute", "2026-11-29T11"):  # fmt: skip
        assert said in page, said


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ("threshold=80", "2026-11<", "2026-11-29T11"),
        ("threshold=hit", "2026-11-29T11", "organisation spend/month"),
        ("delivered_at__isempty=1", "organisation spend/month", "2026-11-29T11"),
        ("q=globex", "2026-11-29T11", "organisation spend/month"),
    ],
)
def test_they_can_be_filtered(operator, raised, query, shown, hidden):
    page = operator.get(f"{reverse(LIST)}?{query}").text
    assert shown in page
    assert hidden not in page


def test_one_is_looked_at_and_cannot_be_changed(operator, raised):
    page = reverse("console:policy_alert_change", args=[raised[0].pk])
    assert "8000000000" in operator.get(page).text.replace(",", "")
    assert operator.post(page, {"hits": 9}).status_code == 403
    with system_scope("test"):
        assert Alert.objects.get(pk=raised[0].pk).hits == 0
