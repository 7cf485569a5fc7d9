"""Plans, limits, restrictions and the balance over the control API: set, read back, compiled."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_operator_key
from tenants.limits import set_limit, set_restriction
from tenants.models import SetBy
from tests.api.test_control_api import CATALOG
from tests.metering.segments import message, settle
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
AT = "/api/v1/organisations/acme"
RATE = {"level": "organisation", "kind": "requests", "window": "minute"}
BUDGET = {"level": "organisation", "kind": "spend", "window": "month"}
NOWHERE = "01900000-0000-7000-8000-000000000000"


class Operator:
    """An operator's program: JSON in, the answer out, which must have the status expected."""

    def __init__(self) -> None:
        self.client = APIClient()
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")

    def ask(self, method, path, body=None, status=200, **headers):
        call = getattr(self.client, method)
        answer = call(path, body, format="json", **headers)
        assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None


@pytest.fixture
def operator(organisation):
    return Operator()


def limits_of(organisation):
    return {
        f"{each.level} {each.kind} {each.window}": each.amount
        for each in compiled(organisation.id, organisation.key_id).limits
    }


ROUTES = [
    ("get", "/api/v1/plans"),
    ("get", "/api/v1/plans/standard"),
    ("put", "/api/v1/plans/standard"),
    ("put", f"{AT}/plan"),
    ("put", f"{AT}/priority"),
    ("get", f"{AT}/limits"),
    ("put", f"{AT}/limits"),
    ("delete", f"{AT}/limits/{NOWHERE}"),
    ("post", f"{AT}/limits/{NOWHERE}/raise"),
    ("get", f"{AT}/restrictions"),
    ("put", f"{AT}/restrictions"),
    ("post", f"{AT}/balance"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_enters_without_an_operator_key(organisation, method, path):
    customer = APIClient()
    assert getattr(customer, method)(path).status_code == 401
    customer.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert getattr(customer, method)(path).status_code == 401


def test_a_plan_is_made_read_back_and_binds_who_is_on_it(operator, organisation):
    terms = [
        BUDGET | {"amount": "12.5", "burst": None, "mode": "notify", "model": ""},
        RATE | {"amount": "60", "burst": 5, "mode": "enforce", "model": ""},
    ]
    restrictions = {
        "models": ["tiny-lm"], "surfaces": None, "ip_ranges": ["10.0.0.0/8"],
        "request_tokens_max": 500,
    }  # fmt: skip
    body = {"name": "Gold", "description": "More.", "limits": terms, "restrictions": restrictions}
    made = operator.ask("put", "/api/v1/plans/gold", body)
    assert made == body | {"slug": "gold"}
    assert operator.ask("get", "/api/v1/plans/gold") == made
    slugs = [plan["slug"] for plan in operator.ask("get", "/api/v1/plans")]
    assert slugs == ["gold", "standard"]
    moved = operator.ask("put", f"{AT}/plan", {"plan": "gold"})
    assert moved["plan"] == operator.ask("get", AT)["plan"] == "gold"
    assert limits_of(organisation) == {
        "organisation requests minute": 60, "organisation spend month": 12_500_000_000,
    }  # fmt: skip
    operator.ask("put", "/api/v1/plans/gold", body | {"limits": terms[1:]})
    assert limits_of(organisation) == {"organisation requests minute": 60}
    assert operator.ask("put", f"{AT}/plan", {"plan": None})["plan"] is None
    assert limits_of(organisation) == {}
    for path in ("/api/v1/plans/tin", f"{AT}/plan"):
        method = "put" if path.startswith(AT) else "get"
        gone = operator.ask(method, path, {"plan": "tin"} if method == "put" else None, status=404)
        assert gone["code"] == "plan_not_found"


def test_a_limit_is_set_raised_and_removed(operator, organisation):
    (standard,) = operator.ask("get", f"{AT}/limits")
    assert (standard["id"], standard["source"], standard["amount"]) == (None, "plan", "6000")
    made = operator.ask("put", f"{AT}/limits", RATE | {"amount": "70", "burst": 9})
    assert (made["amount"], made["burst"], made["source"]) == ("70", 9, "override")
    assert limits_of(organisation) == {"organisation requests minute": 70}
    until = clock.now().replace(microsecond=0) + timedelta(hours=1)
    told = {"amount": "90", "until": until.isoformat()}
    raised = operator.ask("post", f"{AT}/limits/{made['id']}/raise", told)
    assert (raised["amount"], raised["raised_to"]) == ("70", "90")
    assert raised["raised_until"] == until.isoformat().replace("+00:00", "Z")
    with clock.frozen(until):
        (over,) = operator.ask("get", f"{AT}/limits")
    assert (over["amount"], over["raised_to"], over["raised_until"]) == ("70", None, None)
    lifted = operator.ask("put", f"{AT}/limits", RATE | {"amount": None})
    assert (lifted["id"], lifted["amount"]) == (made["id"], None)
    assert limits_of(organisation) == {}
    operator.ask("delete", f"{AT}/limits/{made['id']}", status=204)
    assert operator.ask("get", f"{AT}/limits") == [standard]
    for method, path in (("delete", ""), ("post", "/raise")):
        body = told if method == "post" else None
        gone = operator.ask(method, f"{AT}/limits/{made['id']}{path}", body, status=404)
        assert gone["code"] == "limit_not_found"


def test_what_an_organisation_set_for_itself_is_told_beside_the_operators(operator, organisation):
    mine = {"tenant_id": organisation.id, "scope_id": organisation.id, "by": SetBy.ORGANISATION}
    own = set_limit(**mine, **RATE, amount=10)
    set_restriction(**mine, level="organisation", surfaces=["openai.chat"])
    operator.ask("put", f"{AT}/limits", RATE | {"amount": "70"})
    told = operator.ask("get", f"{AT}/limits")
    assert [(each["source"], each["amount"]) for each in told] == [
        ("override", "70"), ("organisation", "10"),
    ]  # fmt: skip
    assert limits_of(organisation) == {"organisation requests minute": 10}
    (restriction,) = operator.ask("get", f"{AT}/restrictions")
    assert restriction["set_by"] == "organisation"
    operator.ask("delete", f"{AT}/limits/{own.id}", status=204)
    assert limits_of(organisation) == {"organisation requests minute": 70}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "many"}, "amount"),
        ({"amount": "1.5"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1e400"}, "amount"),
        ({"kind": "spend", "window": "month", "amount": "0.0000000001"}, "amount"),
        ({"window": "month"}, "window"),
        ({"level": "key"}, "scope_id"),
        ({"level": "key", "scope_id": NOWHERE}, "scope_id"),
        ({"level": "key_model", "scope_id": NOWHERE}, "model"),
    ],
)
def test_a_limit_that_cannot_be_is_a_problem_that_names_the_field(operator, change, field):
    body = RATE | {"amount": "10"} | change
    status = 404 if change.get("level") == "key" and "scope_id" in change else 400
    assert operator.ask("put", f"{AT}/limits", body, status=status)["field"] == field


def test_what_a_body_lacks_is_told_by_its_field(operator):
    told = operator.ask("put", f"{AT}/limits", {"level": "galaxy"}, status=400)
    assert set(told["errors"]) == {"level", "kind", "window", "amount"}


def test_who_is_served_first_is_set(operator, organisation):
    body = {"priority": "high", "weight": 9}
    told = operator.ask("put", f"{AT}/priority", body)
    assert {field: told[field] for field in body} == body
    document = compiled(organisation.id, organisation.key_id)
    assert (document.priority, document.weight) == ("high", 9)
    assert "weight" in operator.ask("put", f"{AT}/priority", body | {"weight": 0}, 400)["errors"]


def test_restrictions_are_said_read_back_and_taken_back(operator, organisation):
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    body = {
        "level": "key", "scope_id": str(organisation.key_id), "models": ["tiny-lm"],
        "surfaces": ["openai.chat"], "ip_ranges": ["10.0.0.0/8"], "request_tokens_max": 500,
    }  # fmt: skip
    told = body | {"set_by": "operator"}
    assert operator.ask("put", f"{AT}/restrictions", body) == told
    assert operator.ask("get", f"{AT}/restrictions") == [told]
    document = compiled(organisation.id, organisation.key_id)
    assert (list(document.models), document.ip_ranges) == (["tiny-lm"], ["10.0.0.0/8"])
    nothing = {"level": "key", "scope_id": str(organisation.key_id)}
    assert operator.ask("put", f"{AT}/restrictions", nothing)["models"] is None
    assert operator.ask("get", f"{AT}/restrictions") == []
    wrong = operator.ask("put", f"{AT}/restrictions", body | {"ip_ranges": ["here"]}, status=400)
    assert wrong["field"] == "ip_ranges"


def test_a_payment_told_of_twice_is_paid_in_once(operator, organisation):
    said = {"HTTP_IDEMPOTENCY_KEY": "payment 1"}
    for _ in range(2):
        told = operator.ask("post", f"{AT}/balance", {"amount": "10.5"}, status=201, **said)
        assert told == {"currency": "USD", "paid_in": "10.5", "spent": "0", "left": "10.5"}
    assert limits_of(organisation)["organisation spend prepaid"] == 10_500_000_000
    other = operator.ask("post", f"{AT}/balance", {"amount": "11"}, status=409, **said)
    assert (other["code"], other["field"]) == ("reference_taken", "reference")
    assert operator.ask("post", f"{AT}/balance", {"amount": "1"}, 400)["field"] == "reference"
    nought = operator.ask("post", f"{AT}/balance", {"amount": "0"}, 400, **said)
    assert nought["field"] == "amount"


def test_what_was_spent_is_told_beside_a_budget(operator, organisation):
    nano = 2_500_000_000
    ingest_segment(message([settle(organisation, cost_nano=nano, reserved_nano=nano)]))
    made = operator.ask("put", f"{AT}/limits", BUDGET | {"amount": "4", "mode": "notify"})
    assert (made["spent"], made["left"]) == ("2.5", "1.5")
    assert made["resets_at"] is not None


def test_an_organisation_that_is_not_there_is_not_found(operator):
    for method, path in ROUTES[3:]:
        elsewhere = path.replace("acme", "nobody")
        body = {"put": {"plan": None}, "post": {"amount": "1"}}.get(method)
        answer = getattr(operator.client, method)(elsewhere, body, format="json")
        assert answer.status_code in (400, 404), path
    assert operator.ask("get", "/api/v1/organisations/nobody/limits", status=404)["code"] == (
        "organisation_not_found"
    )
