"""Credit over the control API: granted once, read back, refunded, recurring, and the balance."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from meterplane.kernel import clock
from tests.api.test_limits_api import AT, NOWHERE, Operator

pytestmark = pytest.mark.django_db
CREDITS = f"{AT}/credits"
CREDIT_LIMIT = {"level": "organisation", "kind": "spend", "window": "credit", "amount": "5"}
BODY = {"kind": "purchased", "amount": "12.50", "reason": "order 7"}


@pytest.fixture
def operator(organisation):
    return Operator()


ROUTES = [
    ("get", CREDITS),
    ("post", CREDITS),
    ("get", f"{CREDITS}/{NOWHERE}"),
    ("post", f"{CREDITS}/{NOWHERE}/refund"),
    ("get", f"{AT}/credit-balance"),
    ("put", f"{AT}/credit-hold"),
    ("get", f"{AT}/recurring-credits"),
    ("post", f"{AT}/recurring-credits"),
    ("post", f"{AT}/recurring-credits/{NOWHERE}/end"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_enters_without_an_operator_key(organisation, method, path):
    customer = APIClient()
    customer.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert getattr(customer, method)(path).status_code == 401


def test_credit_is_granted_once_read_back_and_refunded_once(operator):
    made = operator.ask("post", CREDITS, BODY, 201, HTTP_IDEMPOTENCY_KEY="order-7")
    again = operator.ask("post", CREDITS, BODY, 201, HTTP_IDEMPOTENCY_KEY="order-7")
    assert again == made
    assert (made["amount"], made["remaining"], made["state"]) == ("12.50", "12.50", "live")
    assert (made["models"], made["meters"], made["movements"]) == ([], [], [])
    assert made["created_by"].startswith("operator key tests")
    balance = operator.ask("get", f"{AT}/credit-balance")
    assert (balance["total"], balance["purchased"], balance["promotional"]) == (
        "12.50", "12.50", "0.00",
    )  # fmt: skip
    assert [each["id"] for each in balance["grants"]] == [made["id"]]
    refund = operator.ask("post", f"{CREDITS}/{made['id']}/refund")
    assert refund == operator.ask("post", f"{CREDITS}/{made['id']}/refund")
    assert (refund["refunded"], refund["currency"]) == ("12.50", "USD")
    told = operator.ask("get", f"{CREDITS}/{made['id']}")
    assert (told["remaining"], told["state"]) == ("0.00", "used")
    assert [(each["kind"], each["amount"]) for each in told["movements"]] == [("refunded", "12.50")]
    assert [each["state"] for each in operator.ask("get", CREDITS)] == ["used"]
    assert operator.ask("get", f"{AT}/credit-balance")["total"] == "0.00"


def test_an_organisation_is_held_to_its_credit_and_no_longer(operator):
    operator.ask("post", CREDITS, BODY, 201, HTTP_IDEMPOTENCY_KEY="order-7")
    balance = operator.ask("get", f"{AT}/credit-balance")
    assert (balance["held_to_credit"], balance["spendable"], balance["spent"]) == (
        False, None, None,
    )  # fmt: skip
    for _ in range(2):
        held = operator.ask("put", f"{AT}/credit-hold", {"held_to_credit": True})
        assert (held["held_to_credit"], held["spendable"], held["spent"], held["total"]) == (
            True, "12.5", "0", "12.50",
        )  # fmt: skip
    released = operator.ask("put", f"{AT}/credit-hold", {"held_to_credit": False})
    assert (released["held_to_credit"], released["spendable"]) == (False, None)
    problem = operator.ask("put", f"{AT}/credit-hold", {"held_to_credit": "maybe"}, 400)
    assert "held_to_credit" in str(problem)
    refused = operator.ask("put", f"{AT}/limits", CREDIT_LIMIT, 400)
    assert refused["code"] != "internal_error"


def test_grants_are_told_in_the_order_of_drawing(operator):
    soon = (clock.now() + timedelta(days=3)).isoformat()
    for key, more in (("a", {}), ("b", {"expires_at": soon}), ("c", {"priority": 1})):
        operator.ask("post", CREDITS, BODY | {"reason": key} | more, 201, HTTP_IDEMPOTENCY_KEY=key)
    balance = operator.ask("get", f"{AT}/credit-balance")
    assert [each["reason"] for each in balance["grants"]] == ["c", "b", "a"]
    assert balance["total"] == "37.50"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "1.005"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "1e400"}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"currency": "EUR"}, "currency"),
        ({"rollover_max": "5"}, "rollover_max"),
        ({"rollover_max": "x"}, "rollover_max"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_bad_terms_are_a_problem_that_names_the_field(operator, change, field):
    problem = operator.ask("post", CREDITS, BODY | change, 400, HTTP_IDEMPOTENCY_KEY="k")
    assert (problem["code"], problem["field"]) == ("credit_invalid", field)
    assert operator.ask("get", CREDITS) == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "stolen"}, {"amount": None}, {"priority": 101}, {"priority": "high"},
        {"models": "minilm"}, {"models": [""]}, {"expires_at": "soon"}, {"reason": "x" * 201},
    ],
)  # fmt: skip
def test_what_has_not_the_shape_of_a_grant_is_refused(operator, change):
    problem = operator.ask("post", CREDITS, BODY | change, 400, HTTP_IDEMPOTENCY_KEY="k")
    assert next(iter(change)) in problem["errors"]


def test_a_grant_has_a_name_and_a_name_has_one_grant(operator):
    assert operator.ask("post", CREDITS, BODY, 400)["field"] == "idempotency_key"
    operator.ask("post", CREDITS, BODY, 201, HTTP_IDEMPOTENCY_KEY="k")
    problem = operator.ask("post", CREDITS, BODY | {"amount": "13"}, 409, HTTP_IDEMPOTENCY_KEY="k")
    assert problem["code"] == "idempotency_key_reused"


def test_what_is_not_there_is_not_found(operator):
    for method, path in (("get", f"{CREDITS}/{NOWHERE}"), ("post", f"{CREDITS}/{NOWHERE}/refund")):
        assert operator.ask(method, path, status=404)["code"] == "credit_not_found"
    end = {"ends_at": clock.now().isoformat()}
    ended = operator.ask("post", f"{AT}/recurring-credits/{NOWHERE}/end", end, 404)
    assert ended["code"] == "recurrence_not_found"
    assert operator.ask("get", "/api/v1/organisations/nobody/credits", status=404)


def test_a_monthly_grant_is_made_granted_and_ended(operator):
    started = clock.now() - timedelta(days=1)
    body = BODY | {"kind": "promotional", "starts_at": started.isoformat(), "rollover_max": "1"}
    made = operator.ask(
        "post", f"{AT}/recurring-credits", body, 201, HTTP_IDEMPOTENCY_KEY="monthly"
    )
    assert (made["amount"], made["term_months"], made["rollover_max"]) == ("12.50", 1, "1.00")
    [granted] = operator.ask("get", CREDITS)
    assert (granted["recurrence_id"], granted["state"]) == (made["id"], "live")
    end = {"ends_at": clock.now().isoformat()}
    ended = operator.ask("post", f"{AT}/recurring-credits/{made['id']}/end", end)
    assert ended["ends_at"] is not None
    assert operator.ask("get", f"{AT}/recurring-credits") == [ended]
