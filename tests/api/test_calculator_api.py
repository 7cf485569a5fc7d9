"""The calculator over the control API."""

import json

import pytest
from django.test import Client
from rest_framework.test import APIClient

from tests.api.test_limits_api import Operator

pytestmark = pytest.mark.django_db
CALCULATE = "/api/v1/pricing/calculate"
ROUND = {"op": "round", "amount": "10.275", "currency": "USD"}
PRICE = {
    "op": "price", "quantity": "22", "currency": "USD", "already_billed": "160",
    "model": {"type": "unit", "unit_amount": "8.25", "free_units": "0"},
}  # fmt: skip


@pytest.fixture
def operator(organisation):
    return Operator()


def test_one_question_is_answered(operator):
    assert operator.ask("post", CALCULATE, PRICE) == {
        "amount": "181.50", "exact": "181.5", "net": "21.50",
        "lines": [{"tier": None, "quantity": "22", "amount": "181.5"}],
    }  # fmt: skip


def test_many_are_answered_each_in_its_place(operator):
    good, bad = {"amount": "10.28"}, ROUND | {"amount": 10.275}
    first, second, third, fourth = operator.ask("post", CALCULATE, [ROUND, bad, 7, ROUND])
    assert first == fourth == good
    assert (second["error"]["code"], second["error"]["field"]) == ("field_invalid", "amount")
    assert "JSON float" in second["error"]["message"]
    assert third["error"]["code"] == "field_invalid"
    assert operator.ask("post", CALCULATE, []) == []


def test_a_thousand_is_the_most(operator):
    assert operator.ask("post", CALCULATE, [ROUND] * 1000) == [{"amount": "10.28"}] * 1000
    problem = operator.ask("post", CALCULATE, [ROUND] * 1001, status=422)
    assert problem["code"] == "too_many_questions"


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        (PRICE | {"quantity": 22.0}, "field_invalid", "quantity"),
        (PRICE | {"model": {"type": "unit", "unit_amount": 0.5}}, "price_model_invalid",
         "model.unit_amount"),
        (PRICE | {"model": {"type": "volume", "tiers": [{"up_to": "1", "unit_amount": "1"}]}},
         "price_model_invalid", "model.tiers[0].up_to"),
        (ROUND | {"more": "1"}, "field_invalid", "more"), ({}, "op_unknown", "op"),
        (7, "field_invalid", None), ("price", "field_invalid", None),
    ],
)  # fmt: skip
def test_a_question_that_comes_alone_and_is_bad_is_a_problem(operator, asked, code, field):
    problem = operator.ask("post", CALCULATE, asked, status=422)
    assert (problem["code"], problem.get("field")) == (code, field)
    assert problem["error"] == {"code": code, "message": problem["detail"], "field": field}


def test_what_is_no_json_is_a_problem(operator):
    for body in (b"{", b"\xff", b"[" * 5000):
        found = operator.client.post(CALCULATE, body, content_type="application/json")
        assert found.status_code == 400
        assert found.json()["code"] == "parse_error"


def test_an_operators_key_is_needed(organisation):
    assert APIClient().post(CALCULATE, ROUND, format="json").status_code == 401
    assert Client().post(CALCULATE, json.dumps(ROUND), "application/json").status_code == 401
