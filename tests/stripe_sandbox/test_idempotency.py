"""One execution per key: replays, mismatches, races, crashes in between, and forgetting."""

import http.client
from urllib.parse import urlsplit

import pytest
import stripe

from stripe_sandbox import idempotency
from stripe_sandbox.app import execute
from stripe_sandbox.call import Call
from stripe_sandbox.errors import StripeError
from stripe_sandbox.params import Takes
from stripe_sandbox.routes import Endpoint
from stripe_sandbox.store import Document, Store
from tests.stripe_sandbox.rig import KEY, Books, Sandbox

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {KEY}"}


def test_the_same_request_is_executed_once_and_answered_twice(sandbox: Sandbox):
    asked = {"email": "a@acme.example", "metadata[org]": "7"}
    once = sandbox.request("POST", "/v1/customers", asked, {"Idempotency-Key": "once"})
    twice = sandbox.request("POST", "/v1/customers", asked, {"Idempotency-Key": "once"})
    assert twice.text == once.text
    assert "Idempotent-Replayed" not in once.headers
    assert twice.headers["Idempotent-Replayed"] == "true"
    assert twice.headers["Original-Request"] == once.headers["Request-Id"]
    assert twice.headers["Request-Id"] != once.headers["Request-Id"]


def test_the_order_of_parameters_does_not_make_another_request(sandbox: Sandbox):
    head = {"Idempotency-Key": "order"}
    one = sandbox.request("POST", "/v1/customers", {"name": "A", "email": "e"}, head)
    two = sandbox.request("POST", "/v1/customers", {"email": "e", "name": "A"}, head)
    assert two.json["id"] == one.json["id"]


def test_other_parameters_or_another_path_under_the_same_key_are_refused(
    client: stripe.StripeClient,
):
    made = client.v1.customers.create({"name": "A"}, {"idempotency_key": "mismatch"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"name": "B"}, {"idempotency_key": "mismatch"})
    assert refused.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.update(made.id, {"name": "A"}, {"idempotency_key": "mismatch"})


def test_a_declined_payment_is_replayed_and_not_tried_again(books: Books):
    invoice = books.draft(books.customer("pm_card_chargeCustomerFail"), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            books.client.v1.invoices.pay(invoice, {}, {"idempotency_key": f"pay:{invoice}"})
    assert books.events_about(invoice).count("invoice.payment_failed") == 1


def test_an_error_of_state_is_replayed_but_a_validation_error_frees_the_key(
    sandbox: Sandbox, books: Books
):
    invoice = books.in_status("open")
    path = f"/v1/invoices/{invoice}/finalize"
    first = sandbox.request("POST", path, {}, {"Idempotency-Key": f"fin:{invoice}"})
    again = sandbox.request("POST", path, {}, {"Idempotency-Key": f"fin:{invoice}"})
    assert (first.status, again.status) == (400, 400)
    assert again.headers["Idempotent-Replayed"] == "true"

    head = {"Idempotency-Key": "typo"}
    wrong = sandbox.request("POST", "/v1/customers", {"emial": "x"}, head)
    right = sandbox.request("POST", "/v1/customers", {"email": "x"}, head)
    assert (wrong.status, right.status) == (400, 200)


def test_a_key_still_running_is_answered_409_and_runs_once(sandbox: Sandbox):
    """The first request's headers have arrived and its body has not: it is under way.

    The server asks for the body (100 Continue) only after it has claimed the key.
    """
    address = urlsplit(sandbox.url)
    head = FORM | {"Idempotency-Key": "race", "Content-Length": "6", "Expect": "100-continue"}
    first = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=10)
    first.putrequest("POST", "/v1/customers")
    for name, value in head.items():
        first.putheader(name, value)
    first.endheaders()
    assert first.sock.recv(100).startswith(b"HTTP/1.1 100")
    first.send(b"nam")
    second = sandbox.request("POST", "/v1/customers", {"name": "A"}, {"Idempotency-Key": "race"})
    assert (second.status, second.error["code"]) == (409, "idempotency_key_in_use")
    assert second.error["type"] == "idempotency_error"
    first.send(b"e=A")
    answer = first.getresponse()
    assert answer.status == 200
    made = answer.read()
    first.close()
    third = sandbox.request("POST", "/v1/customers", {"name": "A"}, {"Idempotency-Key": "race"})
    assert third.text == made.decode()


def test_a_request_given_up_half_way_frees_its_key(sandbox: Sandbox):
    address = urlsplit(sandbox.url)
    first = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=10)
    first.putrequest("POST", "/v1/customers")
    for name, value in (FORM | {"Idempotency-Key": "gone", "Content-Length": "6"}).items():
        first.putheader(name, value)
    first.endheaders()
    first.send(b"nam")
    first.close()
    statuses = [
        sandbox.request("POST", "/v1/customers", {"name": "A"}, {"Idempotency-Key": "gone"}).status
        for _ in range(20)
    ]
    assert statuses[-1] == 200


def test_keys_are_forgotten_after_a_day(tmp_path):
    store = Store(tmp_path / "stripe.sqlite3")
    answer = idempotency.Saved("req_1", 200, {"id": "cus_1"})
    idempotency.save(store, "key", "print", answer, now=1_000)
    last = 1_000 + 24 * 3600 - 1
    assert idempotency.replay(store, "key", "print", last) == answer
    with pytest.raises(StripeError):
        idempotency.replay(store, "key", "another print", last)
    assert idempotency.replay(store, "key", "another print", last + 1) is None
    idempotency.prune(store, last + 1)
    assert store.connection.execute("SELECT count(*) FROM idempotent_result").fetchone() == (0,)
    store.close()


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_have_one_to_255_characters(sandbox: Sandbox, key: str):
    assert sandbox.request("POST", "/v1/customers", {}, {"Idempotency-Key": key}).status == 400


def test_the_sdks_own_retry_meets_the_same_execution(sandbox: Sandbox, books: Books):
    retrying = sandbox.client(max_network_retries=2)
    customer = retrying.v1.customers.create({"name": "Once"})
    same = books.client.v1.customers.list({"limit": 2}).data
    assert [each.id for each in same if each.name == "Once"] == [customer.id]


def test_an_act_that_breaks_leaves_nothing_behind_and_is_answered_500(tmp_path):
    """The 500 is an answer like any other: it is saved and replayed, its half effects are not."""
    store = Store(tmp_path / "stripe.sqlite3")

    def breaks(call: Call) -> Document:
        call.store.insert({"id": "cus_half", "object": "customer"}, created=call.now)
        raise RuntimeError("a bug")

    endpoint = Endpoint("POST", "/v1/customers", Takes(), breaks)
    with store.transaction():
        answer = execute(endpoint, Call(store=store, now=1, base_url=""))
    assert (answer.status, answer.body["error"]["type"]) == (500, "api_error")
    assert store.find("customer", "cus_half") is None
    store.close()
