"""Charges without an invoice, and cards kept for later: what each test card does, on and off
session, and the page where a bank asks its holder."""

from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books, Sandbox

BACK = "http://127.0.0.1:9/back"

# The card, whether the customer is there, and what confirming comes to.
CONFIRMED = """
pm_card_visa                             off  succeeded
pm_card_visa                             on   succeeded
pm_card_chargeCustomerFail               off  card_declined
pm_card_chargeDeclinedInsufficientFunds  on   card_declined
pm_card_authenticationRequired           off  authentication_required
pm_card_authenticationRequired           on   requires_action
pm_card_authenticationRequiredOnSetup    off  authentication_required
pm_card_createDispute                    off  succeeded
"""
ROWS = [line.split() for line in CONFIRMED.strip().splitlines()]


def _params(**fields: Any) -> Any:
    return {"amount": 2500, "currency": "usd", **fields}


@pytest.mark.parametrize(("card", "session", "outcome"), ROWS)
def test_each_card_confirms_as_published(books: Books, card: str, session: str, outcome: str):
    client = books.client.v1
    params = _params(payment_method=card, confirm=True, metadata={"reload": "r1"})
    if session == "off":
        params["off_session"] = True
    if outcome not in ("succeeded", "requires_action"):
        with pytest.raises(stripe.CardError) as declined:
            client.payment_intents.create(params)
        assert declined.value.code == outcome
        body: Any = declined.value.json_body
        left = client.payment_intents.retrieve(body["error"]["payment_intent"]["id"])
        assert left.status == "requires_payment_method"
        assert left.last_payment_error is not None
        assert left.last_payment_error.charge == left.latest_charge
        assert client.charges.retrieve(str(left.latest_charge)).status == "failed"
        assert left.metadata["reload"] == "r1"
        return
    intent = client.payment_intents.create(params)
    assert intent.status == outcome
    assert intent.amount_received == (2500 if outcome == "succeeded" else 0)
    told = books.events_about(intent.id)
    assert told[0] == "payment_intent.created"
    assert told[-1] == f"payment_intent.{outcome}"


def test_a_saved_card_reloads_off_session_for_its_own_customer_only(books: Books):
    client = books.client.v1
    owner, other = books.customer(), books.customer(card=None)
    [card] = client.customers.payment_methods.list(owner).data
    params = _params(payment_method=card.id, confirm=True, off_session=True)
    made = client.payment_intents.create({**params, "customer": owner})
    assert made.status == "succeeded"
    assert [each.id for each in client.payment_intents.list({"customer": owner}).data] == [made.id]
    for wrong in ({**params, "customer": other}, params):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.payment_intents.create(wrong)
        assert refused.value.param == "payment_method"
    assert client.payment_intents.list({"customer": other}).data == []


def test_creating_confirming_and_cancelling_are_steps(books: Books):
    client = books.client.v1
    customer = books.customer(card=None)
    intent = client.payment_intents.create(_params(customer=customer))
    assert intent.status == "requires_payment_method"
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        client.payment_intents.confirm(intent.id)
    client.payment_intents.update(intent.id, {"amount": 3000, "setup_future_usage": "off_session"})
    paid = client.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.amount_received) == ("succeeded", 3000)
    assert len(client.customers.payment_methods.list(customer).data) == 1
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.payment_intents.cancel(intent.id)
    assert refused.value.code == "payment_intent_unexpected_state"
    other = client.payment_intents.create(_params())
    cancelled = client.payment_intents.cancel(other.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")


def test_the_intent_of_an_invoice_moves_with_its_invoice_only(books: Books):
    invoice = books.in_status("open")
    [link] = books.client.v1.invoice_payments.list({"invoice": invoice}).data
    intent = str(link.payment.payment_intent)
    for act in (books.client.v1.payment_intents.cancel, books.client.v1.payment_intents.confirm):
        with pytest.raises(stripe.InvalidRequestError, match="belongs to an invoice"):
            act(intent)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"amount": 49}, "amount_too_small", "amount"),
        ({"amount": 100_000_000}, "amount_too_large", "amount"),
        (
            {"payment_method_types": ["card"]},
            "payment_method_types_no_longer_supported",
            "payment_method_types",
        ),
        ({"off_session": True}, None, "off_session"),
        (
            {
                "confirm": True,
                "payment_method": "pm_card_visa",
                "automatic_payment_methods": {"enabled": True},
            },
            None,
            "return_url",
        ),
        ({"return_url": "javascript:alert(1)"}, "url_invalid", "return_url"),
    ],
)
def test_what_stripe_refuses_is_refused(books: Books, fields: Any, code: str, param: str):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        books.client.v1.payment_intents.create(_params(**fields))
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("kind", "answer", "status"),
    [
        ("payment_intent", "approve", "succeeded"),
        ("payment_intent", "fail", "requires_payment_method"),
        ("setup_intent", "approve", "succeeded"),
        ("setup_intent", "fail", "requires_payment_method"),
    ],
)
def test_the_holder_answers_on_a_page_and_is_led_back(
    sandbox: Sandbox, books: Books, kind: str, answer: str, status: str
):
    api: Any = getattr(books.client.v1, f"{kind}s")
    params: Any = {
        "confirm": True,
        "payment_method": "pm_card_authenticationRequired",
        "return_url": BACK,
    }
    asked = api.create(_params(**params) if kind == "payment_intent" else params)
    assert asked.status == "requires_action"
    assert asked.next_action.redirect_to_url.return_url == BACK
    path = asked.next_action.redirect_to_url.url.removeprefix(sandbox.url)
    page = sandbox.request("GET", path, key=None)
    assert "Complete authentication" in page.text
    assert "http://127.0.0.1:9;" in page.headers["Content-Security-Policy"]
    done = sandbox.request("POST", path, {"answer": answer}, key=None)
    redirect = "succeeded" if status == "succeeded" else "failed"
    assert done.headers["Location"].startswith(f"{BACK}?{kind}={asked.id}&")
    assert done.headers["Location"].endswith(f"redirect_status={redirect}")
    assert api.retrieve(asked.id).status == status
    again = sandbox.request("POST", path, {"answer": "approve"}, key=None)
    assert again.status == 303
    assert api.retrieve(asked.id).status == status


def test_a_setup_keeps_the_card_or_says_why_not(books: Books):
    client = books.client.v1
    customer = books.customer(card=None)
    kept = client.setup_intents.create(
        {"customer": customer, "payment_method": "pm_card_visa", "confirm": True}
    )
    assert (kept.status, kept.usage) == ("succeeded", "off_session")
    [card] = client.customers.payment_methods.list(customer).data
    assert kept.payment_method == card.id
    waiting = client.setup_intents.create({"customer": customer})
    with pytest.raises(stripe.CardError) as declined:
        client.setup_intents.confirm(waiting.id, {"payment_method": "pm_card_chargeDeclined"})
    body: Any = declined.value.json_body
    assert body["error"]["setup_intent"]["last_setup_error"]["code"] == "card_declined"
    assert client.setup_intents.cancel(waiting.id).status == "canceled"
    assert books.events_about(waiting.id) == [
        "setup_intent.created",
        "setup_intent.setup_failed",
        "setup_intent.canceled",
    ]
    listed = client.setup_intents.list({"customer": customer}).data
    assert [each.id for each in listed] == [waiting.id, kept.id]


def test_a_card_set_up_once_pays_off_session_afterwards(sandbox: Sandbox, books: Books):
    client = books.client.v1
    customer = books.customer(card=None)
    asked = client.setup_intents.create(
        {
            "customer": customer,
            "payment_method": "pm_card_authenticationRequiredOnSetup",
            "confirm": True,
        }
    )
    assert asked.next_action is not None
    assert asked.next_action.redirect_to_url is not None
    path = str(asked.next_action.redirect_to_url.url).removeprefix(sandbox.url)
    sandbox.request("POST", path, {"answer": "approve"}, key=None)
    card = client.setup_intents.retrieve(asked.id).payment_method
    params = _params(customer=customer, payment_method=card, confirm=True, off_session=True)
    assert client.payment_intents.create(params).status == "succeeded"
