"""Webhooks: signed, wanted, at least once, through failures and restarts."""

import json

import pytest
import stripe

from stripe_sandbox import clock, webhooks
from stripe_sandbox.store import Store
from tests.stripe_sandbox.rig import Books, Receiver, Sandbox, until


def test_a_failing_endpoint_is_told_again_until_it_confirms(own_sandbox, receiver: Receiver):
    client = own_sandbox().client()
    receiver.script = [500, 302, 404]  # a redirect is a failure too, and is not followed
    made = client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created"]}
    )
    client.v1.customers.create({"name": "Acme"})
    until(lambda: len(receiver.got) == 4, "four attempts")
    assert len(set(receiver.ids())) == 1
    waits = [later - earlier for earlier, later in zip(receiver.at, receiver.at[1:], strict=False)]
    assert waits[0] >= 0.04
    assert waits[2] > waits[0]
    for body, signature in receiver.got:
        client.construct_event(body, signature, made.secret or "")
    [event] = client.v1.events.list({"type": "customer.created"}).data
    until(lambda: client.v1.events.retrieve(event.id).pending_webhooks == 0, "confirmation")


def test_what_was_not_delivered_is_delivered_after_a_crash(own_sandbox, receiver: Receiver):
    running: Sandbox = own_sandbox()
    client = running.client()
    receiver.script = [503] * 3
    client.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["*"]})
    client.v1.customers.create({"name": "Acme"})
    until(lambda: receiver.got, "a first attempt")
    running.stop(9)
    told = len(receiver.got)
    running.start()
    until(lambda: len(receiver.got) > told and not receiver.script, "attempts after the restart")
    until(lambda: running.request("GET", "/healthz").json["pending_webhooks"] == 0, "delivery")
    assert set(receiver.types()) == {"customer.created"}


def test_an_endpoint_hears_only_what_it_asked_for_and_only_while_enabled(
    client: stripe.StripeClient, receiver: Receiver
):
    endpoints = client.v1.webhook_endpoints
    made = endpoints.create({"url": receiver.url, "enabled_events": ["customer.deleted"]})
    customer = client.v1.customers.create({"name": "Acme"})
    client.v1.customers.delete(customer.id)
    until(lambda: receiver.got, "the deletion")
    endpoints.update(made.id, {"disabled": True})
    silent = client.v1.customers.create({"name": "Other"})
    client.v1.customers.delete(silent.id)
    endpoints.update(made.id, {"disabled": False, "enabled_events": ["*"]})
    last = client.v1.customers.create({"name": "Last"})
    until(lambda: len(receiver.got) == 2, "the last one")
    about = [json.loads(body)["data"]["object"]["id"] for body, _ in receiver.got]
    assert about == [customer.id, last.id]
    endpoints.delete(made.id)


def test_the_secret_is_shown_once(client: stripe.StripeClient):
    endpoints = client.v1.webhook_endpoints
    made = endpoints.create({"url": "http://localhost:9/x", "enabled_events": ["*"]})
    assert (made.secret or "").startswith("whsec_")
    for shown in (
        endpoints.retrieve(made.id),
        endpoints.update(made.id, {"description": "d"}),
        *endpoints.list().data,
    ):
        assert "secret" not in shown
        assert not any(key.startswith("_") for key in shown.to_dict())
    assert endpoints.delete(made.id).deleted


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://example.com/hook",
        "http://127.0.0.1.example.com/",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://[::ffff:10.0.0.1]/",
        "ftp://localhost/",
        "localhost",
        "http://localhost:99999/",
    ],
)
def test_nothing_is_sent_off_this_machine(client: stripe.StripeClient, url: str):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.webhook_endpoints.create({"url": url, "enabled_events": ["*"]})
    assert refused.value.code == "url_invalid"


def test_our_signature_is_the_one_stripes_own_code_makes():
    body = '{"id": "evt_1"}'
    ours = webhooks.sign("whsec_x", body.encode(), 1_700_000_000)
    assert ours == stripe.WebhookSignature.generate_signature_header(
        body, "whsec_x", timestamp=1_700_000_000
    )


def test_an_endpoint_that_never_answers_is_given_up_after_three_days(tmp_path):
    store = Store(tmp_path / "stripe.sqlite3")
    now = clock.now_ms()
    rows = [(now - webhooks.ABANDONED_AFTER_MS,), (now,)]
    for (first_at_ms,) in rows:
        store.connection.execute(
            "INSERT INTO delivery (event, endpoint, state, first_at_ms, next_at_ms)"
            " VALUES ('evt_1', 'we_1', 'pending', ?, 0)",
            (first_at_ms,),
        )
    for row_id, (first_at_ms,) in enumerate(rows, start=1):
        delivery = webhooks.Delivery(row_id, "evt_1", "x", "", "", b"", 30, first_at_ms)
        webhooks.record(store, delivery, "HTTP 500", retry_ms=1_000)
    states = store.connection.execute("SELECT state FROM delivery ORDER BY id").fetchall()
    assert states == [("abandoned",), ("pending",)]
    waited = store.connection.execute("SELECT next_at_ms FROM delivery WHERE id = 2").fetchone()[0]
    assert waited - now == pytest.approx(webhooks.MAX_WAIT_MS, abs=5_000)
    store.close()


def test_a_slow_endpoint_does_not_hold_up_another(own_sandbox, receiver: Receiver):
    import socket

    running: Sandbox = own_sandbox()
    client = running.client()
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for each in (url, receiver.url):
            client.v1.webhook_endpoints.create({"url": each, "enabled_events": ["*"]})
        Books(running).customer(card=None)
        until(lambda: receiver.got, "the other endpoint's delivery")
