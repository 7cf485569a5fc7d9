"""Faults on demand: what a caller sees, what was done, and what a retry with the same key finds."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import stripe

from tests.stripe_sandbox.rig import KEY, Books, Receiver, Sandbox, until


@pytest.fixture
def calm(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The shared sandbox, left without faults."""
    yield sandbox
    sandbox.control("/faults", method="DELETE")
    sandbox.control("/settings", {"rate_limit": False})


def _create(sandbox: Sandbox, name: str, timeout_s: float = 5.0) -> Any:
    """One customer with a key; the answer, or the exception that came instead."""
    try:
        return requests.post(
            f"{sandbox.url}/v1/customers",
            data={"name": name},
            headers={"Authorization": f"Bearer {KEY}", "Idempotency-Key": name},
            timeout=timeout_s,
        )
    except requests.RequestException as failed:
        return failed


def _made(books: Books, name: str) -> int:
    customers = books.client.v1.customers.list({"limit": 100}).data
    return len([each for each in customers if each.name == name])


# What the first call sees, whether it was done by then, what the same key finds next.
TABLE = """
kind              sees  done  header  next  replayed
drop_before       cut   no    -       200   no
drop_after        cut   yes   -       200   yes
timeout_after     cut   yes   -       200   yes
reset_mid_body    cut   yes   -       200   yes
error_500         500   no    -       200   no
error_500_stored  500   no    -       500   yes
error_500_after   500   yes   -       500   yes
conflict_409      409   no    -       200   no
rate_limit        429   no    -       200   no
rate_limit_retry  429   no    true    200   no
rate_limit_final  429   no    false   200   no
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()][1:]


@pytest.mark.parametrize(("kind", "sees", "done", "header", "then", "replayed"), ROWS)
def test_each_fault_strikes_once_and_leaves_what_it_says(
    calm: Sandbox, books: Books, kind: str, sees: str, done: str, header: str, then: str,
    replayed: str,
):  # fmt: skip
    name = f"{kind}-{time.monotonic_ns()}"
    fault = {"kind": kind, "path": "/v1/customers", "method": "POST", "times": 1}
    calm.control("/faults", fault | ({"delay_ms": 200} if kind == "timeout_after" else {}))
    first = _create(calm, name, 1.0)
    if sees == "cut":
        assert isinstance(first, requests.RequestException)
    else:
        assert first.status_code == int(sees)
        assert first.headers.get("Stripe-Should-Retry", "-") == header
    assert _made(books, name) == (1 if done == "yes" else 0)
    second = _create(calm, name)
    assert second.status_code == int(then)
    assert ("Idempotent-Replayed" in second.headers) is (replayed == "yes")
    assert _made(books, name) == (1 if done == "yes" or then == "200" else 0)
    assert calm.control("", method="GET")["faults"][0]["struck"] == 1


def test_the_sdk_recovers_from_a_cut_without_doing_it_twice(calm: Sandbox, books: Books):
    calm.control("/faults", {"kind": "drop_after", "path": "/v1/customers", "times": 2})
    name = f"cut-{time.monotonic_ns()}"
    client = calm.client(max_network_retries=2)
    assert client.v1.customers.create({"name": name}).name == name
    assert _made(books, name) == 1


def test_a_slow_answer_comes_in_the_end(calm: Sandbox, books: Books):
    calm.control("/faults", {"kind": "slow", "path": "/v1/invoices/*", "delay_ms": 150})
    draft = books.draft(books.customer())
    began = time.monotonic()
    books.client.v1.invoices.retrieve(draft)
    assert time.monotonic() - began >= 0.15


def test_a_rule_waits_its_turn_matches_its_path_and_repeats_from_its_seed(calm: Sandbox):
    def pattern(fault: dict[str, Any], path: str = "/v1/customers") -> str:
        calm.control("/faults", method="DELETE")
        calm.control("/faults", {"kind": "error_500", **fault})
        return "".join(str(calm.request("GET", path).status)[0] for _ in range(8))

    assert pattern({"path": "/v1/customers", "after": 2, "times": 3}) == "22555222"
    assert pattern({"path": "/v1/invoices*", "times": 3}) == "22222222"
    assert pattern({"path": "/v1/c*", "method": "POST"}) == "22222222"
    drawn = [pattern({"path": "*", "probability": 0.5, "seed": seed}) for seed in (7, 7, 8)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert set(drawn[0]) == {"2", "5"}


def test_webhooks_may_come_before_the_answer(calm: Sandbox, books: Books, receiver: Receiver):
    endpoint = books.client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created"]}
    )
    calm.control("/faults", {"kind": "webhook_first", "path": "/v1/customers", "times": 1})
    made = books.client.v1.customers.create({"name": "late answer"})
    assert [body for body, _ in receiver.got if made.id.encode() in body]
    books.client.v1.webhook_endpoints.delete(endpoint.id)


def test_more_than_the_limit_in_a_second_is_turned_away_when_switched_on(calm: Sandbox):
    assert {calm.request("GET", "/v1/setup_intents").status for _ in range(40)} == {200}
    calm.control("/settings", {"rate_limit": True})
    path, answers = "/v1/tax_rates", []
    while not answers or (answers[-1].status == 200 and len(answers) < 500):
        answers.append(calm.request("GET", path))
    assert len(answers) > 25
    assert (answers[-1].status, answers[-1].error["code"]) == (429, "rate_limit")
    counted = calm.control("", method="GET")
    assert counted["requests"][f"GET {path}"] >= len(answers)
    assert counted["requests_refused"] == {f"GET {path}": 1}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/faults", {"kind": "flood", "path": "*"}, "kind"),
        ("/faults", {"kind": "slow"}, None),
        ("/faults", {"kind": "slow", "path": "*", "probability": 2}, "probability"),
        ("/faults", {"kind": "slow", "path": "*", "often": 2}, "often"),
        ("/settings", {"search_lag_s": "soon"}, "search_lag_s"),
        ("/settings", {"rate_limit": 1}, "rate_limit"),
        ("/clock", {}, None),
        ("/clock", {"now": 10**15}, "now"),
    ],
)
def test_the_control_door_says_what_is_wrong(
    sandbox: Sandbox, path: str, body: dict[str, Any], param: str | None
):
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = requests.post(f"{sandbox.url}/_sandbox{path}", json=body, headers=headers, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["error"].get("param") == param


def test_the_control_door_needs_the_key(sandbox: Sandbox):
    assert requests.get(f"{sandbox.url}/_sandbox", timeout=5).status_code == 401
    with pytest.raises(stripe.InvalidRequestError):
        sandbox.client().raw_request("get", "/v1/_sandbox")


def test_the_search_is_late_and_says_what_was(movable: Books):
    books = movable
    client = books.client.v1
    customer = books.customer()
    draft = books.draft(customer, 1200, metadata={"run": "r1"})

    def found(query: str) -> list[tuple[str, str | None]]:
        answer = client.invoices.search({"query": query})
        return [(invoice.id, invoice.status) for invoice in answer.data]

    assert found('metadata["run"]:"r1"') == []
    began = books.sandbox.control("", method="GET")["clock"]["now"]
    assert books.sandbox.control("/clock", {"advance_s": 61})["now"] >= began + 61
    assert found('metadata["run"]:"r1"') == [(draft, "draft")]
    client.invoices.finalize_invoice(draft)
    assert found('metadata["run"]:"r1"') == [(draft, "draft")]
    books.sandbox.control("/settings", {"search_lag_s": 0})
    for query, hit in (
        (f'customer:"{customer}" AND status:"open"', True),
        ("total>1199 AND -status:'void'", True),
        ("total>1200", False),
        ('status:"void" OR currency:"usd"', True),
    ):
        assert (found(query) == [(draft, "open")]) is hit, query
    for bad in ("colour:1", "status=open", 'status:"a" AND total>1 OR total>2', "total:>1"):
        with pytest.raises(stripe.InvalidRequestError):
            found(bad)


def test_the_account_may_number_all_its_invoices(movable: Books):
    books = movable
    books.sandbox.control("/settings", {"numbering": "account"})
    numbers = []
    for _ in range(2):
        draft = books.draft(books.customer(), 100)
        numbers.append(books.client.v1.invoices.finalize_invoice(draft).number)
    assert numbers == ["SANDBOX-0001", "SANDBOX-0002"]


def test_the_clock_moves_keys_drafts_and_survives_a_restart(movable: Books):
    books, running = movable, movable.sandbox
    name = "keyed"
    first = _create(running, name).json()["id"]
    draft = books.draft(books.customer(), 1200, auto_advance=True)
    assert books.client.v1.invoices.retrieve(draft).status == "draft"
    moved = running.control("/clock", {"advance_s": 86_400})["now"]
    until(lambda: books.client.v1.invoices.retrieve(draft).status == "paid", "automatic payment")
    second = _create(running, name).json()["id"]
    assert first != second
    running.stop()
    running.start()
    assert running.control("", method="GET")["clock"]["now"] >= moved
