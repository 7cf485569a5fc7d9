"""Alerts over the control API: the newest first, a page at a time; the balance that is low."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from meterplane.kernel import clock
from meterplane.policy.models import Alert
from tenants.limits import add_balance
from tenants.scoping import system_scope
from tests.api.test_limits_api import AT, Operator

pytestmark = pytest.mark.django_db
ALERTS = f"{AT}/alerts"


@pytest.fixture
def operator(organisation):
    return Operator()


def raise_alert(tenant, threshold="80", **what):
    """One more, a second after the one before."""
    with system_scope("test"):
        at = clock.now() + timedelta(seconds=Alert.objects.count())
        with clock.frozen(at):
            values = {
                "level": "organisation", "scope_id": tenant.id, "kind": "spend", "window": "month",
                "mode": "enforce", "label": "2026-11", "used": 8_000_000_001, "amount": 10**10,
            }  # fmt: skip
            return Alert.objects.create(tenant_id=tenant.id, threshold=threshold, **values | what)


def test_an_alert_says_what_was_reached_of_which_limit(operator, organisation):
    made = raise_alert(organisation)
    assert operator.ask("get", ALERTS) == {
        "alerts": [
            {
                "id": str(made.id), "threshold": "80", "level": "organisation",
                "scope_id": str(organisation.id), "scope_name": "Acme", "model": "",
                "kind": "spend", "window": "month", "mode": "enforce", "label": "2026-11",
                "used": "8.000000001", "amount": "10", "hits": 0,
                "raised_at": made.raised_at.isoformat().replace("+00:00", "Z"),
                "delivered_at": None,
            }
        ],
        "next_cursor": None,
    }  # fmt: skip


def test_scopes_are_named_and_counts_are_whole(operator, organisation):
    raise_alert(
        organisation, "hit", level="key", scope_id=organisation.key_id, kind="requests",
        window="minute", label="2026-11-29T11", used=None, amount=60, hits=3,
    )  # fmt: skip
    raise_alert(organisation, level="project", scope_id=organisation.project_id)
    found = operator.ask("get", ALERTS)["alerts"]
    assert [(each["scope_name"], each["used"], each["amount"]) for each in found] == [
        ("Default", "8.000000001", "10"), ("first key", None, "60"),
    ]  # fmt: skip


def test_pages_follow_one_another_without_a_gap(operator, organisation):
    made = [raise_alert(organisation, label=f"2026-{month:02}") for month in range(1, 8)]
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        page = operator.ask("get", f"{ALERTS}?limit=3" + (f"&cursor={cursor}" if cursor else ""))
        seen += [each["id"] for each in page["alerts"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert seen == [str(each.id) for each in reversed(made)]
    assert pages == 3
    assert operator.ask("get", f"{ALERTS}?limit=7")["next_cursor"] is None


def test_one_threshold_can_be_asked_for(operator, organisation):
    for threshold in ("50", "80", "100", "hit", "balance"):
        raise_alert(organisation, threshold)
    for threshold in ("50", "hit"):
        found = operator.ask("get", f"{ALERTS}?threshold={threshold}")["alerts"]
        assert [each["threshold"] for each in found] == [threshold]


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=201", "limit"), ("cursor=x", "cursor"),
                         ("threshold=70", "threshold")],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_by_its_field(operator, organisation, query, field):
    problem = operator.ask("get", f"{ALERTS}?{query}", status=400)
    assert field in str(problem)


def test_another_organisation_has_none(operator, onboard, organisation):
    raise_alert(organisation)
    onboard("globex")
    assert operator.ask("get", "/api/v1/organisations/globex/alerts")["alerts"] == []


@pytest.mark.parametrize(
    ("method", "path"), [("get", ALERTS), ("get", f"{AT}/balance/alert"),
                         ("put", f"{AT}/balance/alert")],
)  # fmt: skip
def test_nobody_enters_without_an_operator_key(organisation, method, path):
    customer = APIClient()
    customer.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert getattr(customer, method)(path).status_code == 401


def test_the_balance_that_is_low_is_chosen_or_a_tenth_of_the_last_payment(operator, organisation):
    path = f"{AT}/balance/alert"

    def told(below, below_now):
        return {"currency": "USD", "below": below, "below_now": below_now}

    assert operator.ask("get", path) == told(None, "0")
    add_balance(tenant_id=organisation.id, nano=20 * 10**9, reference="first")
    add_balance(tenant_id=organisation.id, nano=5 * 10**9, reference="second")
    assert operator.ask("get", path) == told(None, "0.5")
    assert operator.ask("put", path, {"below": "7.5"}) == told("7.5", "7.5")
    assert operator.ask("put", path, {"below": "0"}) == told("0", "0")
    assert operator.ask("put", path, {"below": None}) == told(None, "0.5")
    for wrong in ("-1", "x", "1e40", "2000000000"):
        problem = operator.ask("put", path, {"below": wrong}, status=400)
        assert "below" in str(problem)
    assert operator.ask("get", path) == told(None, "0.5")
