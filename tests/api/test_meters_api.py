"""Meters over the control API: made, changed, counted."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tests.api.test_limits_api import Operator
from tests.catalog.test_meters import GPU
from tests.metering.external.sent import event, send
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db
METERS = "/api/v1/meters"


@pytest.fixture
def operator(organisation):
    return Operator()


def test_a_meter_is_made_changed_and_read_back(operator):
    made = operator.ask("post", METERS, {"slug": "gpu_hours"} | GPU, status=201)
    assert (made["slug"], made["built_in"], made["version"]) == ("gpu_hours", False, 1)
    (only,) = made["versions"]
    assert {name: only[name] for name in GPU} == GPU
    assert only["created_by"].startswith("operator key tests")
    later = (clock.now() + timedelta(days=1)).isoformat().replace("+00:00", "Z")
    changed = operator.ask(
        "put", f"{METERS}/gpu_hours", GPU | {"unit": "h", "effective_from": later}
    )
    assert changed["version"] == 1, "the second does not hold yet"
    assert [each["effective_until"] for each in changed["versions"]] == [later, None]
    assert operator.ask("get", f"{METERS}/gpu_hours") == changed
    listed = operator.ask("get", METERS)
    assert [each["slug"] for each in listed] == [
        "input_tokens", "output_tokens", "requests", "gpu_hours",
    ]  # fmt: skip


def test_what_is_wrong_is_a_problem_with_its_field(operator):
    def refused(method, path, body, status):
        return operator.ask(method, path, body, status=status)

    problem = refused("post", METERS, {"slug": "m"} | GPU | {"aggregation": "count"}, 400)
    assert (problem["code"], problem["field"]) == ("meter_invalid", "field")
    assert refused("post", METERS, {"slug": "m"} | GPU | {"x": 1}, 400)["code"] == "meter_invalid"
    assert refused("post", METERS, [], 400)["code"] == "body_invalid"
    assert refused("post", METERS, GPU, 400)["field"] == "slug"
    assert refused("put", f"{METERS}/m", GPU, 404)["code"] == "meter_not_found"
    assert refused("put", f"{METERS}/requests", GPU, 409)["code"] == "meter_built_in"
    operator.ask("post", METERS, {"slug": "m"} | GPU, status=201)
    assert refused("post", METERS, {"slug": "m"} | GPU, 409)["code"] == "meter_exists"
    past = GPU | {"unit": "h", "effective_from": "2026-01-01T00:00:00Z"}
    assert refused("put", f"{METERS}/m", past, 400)["field"] == "effective_from"
    assert refused("put", f"{METERS}/m", past | {"effective_from": 7}, 422)["field"] == (
        "effective_from"
    )


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "organisation"), ("organisation=nobody", 404, None),
        ("organisation=acme&tz=Mars", 400, "tz"), ("organisation=acme&bucket=week", 400, "bucket"),
        ("organisation=acme&group_by=colour", 400, "group_by"),
        ("organisation=acme&from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "from"),
        ("organisation=acme&from=yesterday", 400, "from"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_said(operator, query, status, field):
    problem = operator.ask("get", f"{METERS}/requests/usage?{query}", status=status)
    assert field is None or problem.get("field") == field or field in problem["errors"]


def test_a_meter_is_counted_in_exact_text(operator, organisation):
    body = {"slug": "gpu_hours"} | GPU | {"rounding": {"rule": "ceil", "digits": 6}}
    operator.ask("post", METERS, body, status=201)
    assert {each.status for each in send(event("1"), event("2"))} == {"accepted"}
    start = (clock.now() - timedelta(days=2)).isoformat().replace("+00:00", "Z")
    path = f"{METERS}/gpu_hours/usage?organisation=acme&from={start}"
    told = operator.ask("get", f"{path}&group_by=data.gpu")
    assert told["rows"] == [
        {"version": 1, "bucket": None, "group": {"data.gpu": "h200"}, "value": "0.006667"}
    ]
    assert [(each["version"], each["unit"], each["skipped"]) for each in told["versions"]] == [
        (1, "hour", 0)
    ]
    ingest_segment(message([settle(organisation, tokens_in=7)]))
    own = operator.ask(
        "get", f"{METERS}/input_tokens/usage?organisation=acme&from={start}&bucket=month"
               "&tz=Europe/Berlin&group_by=model,status"
    )  # fmt: skip
    (row,) = own["rows"]
    assert (row["group"], row["value"]) == ({"model": "tiny-lm", "status": "ok"}, "7")
    assert row["bucket"].endswith(("T22:00:00Z", "T23:00:00Z"))


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", METERS), ("post", METERS), ("get", f"{METERS}/requests"),
     ("put", f"{METERS}/requests"), ("get", f"{METERS}/requests/usage")],
)  # fmt: skip
def test_nobody_enters_without_an_operator_key(organisation, method, path):
    customer = APIClient()
    customer.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert getattr(customer, method)(path).status_code == 401
