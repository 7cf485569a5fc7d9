"""A request and its answer together, and the record that no test gets past."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stripe_sandbox.rig import Books, Receiver, Sandbox, until
from tests.stripe_schema import recording
from tests.stripe_schema.exchange import Exchange, installed

HEADERS = {"request-id": "req_1", "stripe-version": "2026-10-28.endive"}
GONE = {"id": "cus_1", "object": "customer", "deleted": True}


def exchange(answer: Any, **changes: Any) -> Exchange:
    plain: dict[str, Any] = {
        "method": "GET",
        "target": "/v1/customers/cus_1",
        "body": "",
        "status": 200,
        "headers": HEADERS,
        "answer": answer if isinstance(answer, str) else json.dumps(answer),
    }
    return Exchange(**plain | changes)


def refusal(code: str | None, param: str) -> dict[str, Any]:
    error = {"type": "invalid_request_error", "message": "no", "param": param}
    return {"error": error if code is None else error | {"code": code}}


def test_an_exchange_as_at_stripe_has_no_complaint():
    assert installed().check(exchange(GONE)) == []


@pytest.mark.parametrize(
    ("answer", "changes", "says"),
    [
        (GONE, {"target": "/v1/customers/cus_1?foo=1"}, "took foo is unknown"),
        (GONE, {"method": "POST", "body": "balance=1.5"}, "took balance: '1.5' is no whole number"),
        (GONE | {"name": "A"}, {}, "name is not Stripe's"),
        (GONE, {"headers": {"request-id": "req_1"}}, "no stripe-version header"),
        ("<html>", {}, "the answer is not JSON"),
        (refusal(None, "limit"), {"target": "/v1/customers?foo=1", "status": 400},
         "refused because of limit, and not because foo is unknown"),
        (refusal("parameter_unknown", "bar"), {"target": "/v1/customers?foo=1", "status": 400},
         "refused because of bar, and not because foo is unknown"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_exchange_is_said_with_its_call(answer, changes, says):
    asked = exchange(answer, **changes)
    [said] = installed().check(asked)
    assert said.endswith(f" -> {asked.status}: {says}")
    assert said.startswith(f"{asked.method} /v1/customers")


@pytest.mark.parametrize("param", ["foo", "created[after]"])
def test_a_refused_parameter_is_what_a_test_may_be_about(param: str):
    answer = refusal("parameter_unknown", param)
    asked = exchange(answer, target=f"/v1/customers?{param}=1", status=400)
    assert installed().check(asked) == []


def test_all_that_is_asked_answered_and_told_is_on_record(
    own_sandbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    running: Sandbox = own_sandbox()
    client = running.client()
    client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created"]}
    )
    customer = Books(running).customer(card=None, name="Acme Überall")
    assert running.request("GET", "/v1/customers?email=x&limit=3").status == 200
    until(lambda: receiver.got, "the event told")
    running.stop(9)
    lines = running.data.with_suffix(recording.SUFFIX).read_text().splitlines()
    said = [json.loads(line) for line in lines]
    calls = [(each["method"], each["target"]) for each in said if "method" in each]
    assert calls == [
        ("GET", "/healthz"),
        ("POST", "/v1/webhook_endpoints"),
        ("POST", "/v1/customers"),
        ("GET", "/v1/customers?email=x&limit=3"),
    ]
    assert "name=Acme+%C3%9Cberall" in next(
        e["body"] for e in said if e.get("body", "")[:4] == "name"
    )
    told = [json.loads(each["event"]) for each in said if "event" in each]
    assert [each["data"]["object"]["id"] for each in told] == [customer, customer]  # made and told
    assert receiver.got[0][0].decode() in [each.get("event") for each in said]


def test_no_test_serves_a_sandbox_that_is_not_overheard():
    """Those that start one otherwise only see it refuse to start."""
    tests = Path(__file__).parents[1]
    unheard = {
        str(file.relative_to(tests))
        for file in tests.rglob("*.py")
        if '"-m", "stripe_sandbox"' in file.read_text() and file != Path(__file__)
    }
    assert unheard == {"stripe_sandbox/test_requests.py"}


def test_what_stripe_would_not_say_is_complained_of_once(own_sandbox):
    running: Sandbox = own_sandbox()
    assert recording.complaints() == []
    bad = exchange(GONE | {"name": "A"}, target="/v1/customers/cus_1?foo=1")
    with running.data.with_suffix(recording.SUFFIX).open("a") as record:
        for _ in range(2):
            record.write(json.dumps({name: getattr(bad, name) for name in bad.__slots__}) + "\n")
        record.write(json.dumps({"event": json.dumps({"object": "event", "type": "x"})}) + "\n")
        record.write('{"half a li')
    first, second, *about_event = recording.complaints()
    assert first == "GET /v1/customers/{customer} -> 200: name is not Stripe's"
    assert second == "GET /v1/customers/{customer} -> 200: took foo is unknown"
    assert "event x: type: 'x' is not one of Stripe's" in about_event
    assert recording.complaints() == []
