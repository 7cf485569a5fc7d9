"""Checkout and portal: sessions through the SDK, pages as a browser posts them."""

from typing import Any

import pytest
import stripe

from stripe_sandbox import background
from stripe_sandbox.call import Call
from stripe_sandbox.checkout_sessions import CREATE, create
from stripe_sandbox.store import Store
from tests.stripe_sandbox.rig import Books, Sandbox

BACK = "http://127.0.0.1:9/done?s={CHECKOUT_SESSION_ID}"
ITEM: Any = {
    "price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "Credit"}},
    "quantity": 2,
}


def _open(books: Books, **fields: Any) -> Any:
    params = {"success_url": BACK, "cancel_url": "http://127.0.0.1:9/no", **fields}
    return books.client.v1.checkout.sessions.create(params)  # type: ignore[arg-type]


def _press(sandbox: Sandbox, session: Any, card: str, act: str = "card", **fields: str) -> str:
    path = f"/c/pay/{session.id}"
    done = sandbox.request("POST", f"{path}/{act}", {"card": card, **fields}, key=None)
    assert done.status == 303
    return done.headers["Location"]


def test_a_payment_is_clicked_through_to_the_success_page(sandbox: Sandbox, books: Books):
    client = books.client.v1
    customer = books.customer(card=None)
    data = {"metadata": {"top": "up"}, "setup_future_usage": "off_session"}
    session = _open(
        books, mode="payment", customer=customer, line_items=[ITEM], payment_intent_data=data
    )
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert (session.amount_total, session.currency, session.payment_intent) == (5000, "usd", None)
    [line] = client.checkout.sessions.line_items.list(session.id).data
    assert (line.amount_total, line.description) == (5000, "Credit")
    page = sandbox.request("GET", session.url.removeprefix(sandbox.url), key=None)
    for shown in ("SANDBOX", "$50.00", "Credit", "Quantity 2", "Cancel and go back"):
        assert shown in page.text
    assert "form-action 'self' http://127.0.0.1:9;" in page.headers["Content-Security-Policy"]
    assert _press(sandbox, session, "4000000000000341") == f"/c/pay/{session.id}"
    again = sandbox.request("GET", f"/c/pay/{session.id}", key=None)
    assert "Your card was declined." in again.text
    assert _press(sandbox, session, "4242424242424242") == BACK.replace(
        "{CHECKOUT_SESSION_ID}", session.id
    )
    done = client.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    intent = done.payment_intent
    assert (intent.status, intent.amount_received) == ("succeeded", 5000)
    assert (intent.customer, intent.metadata["top"]) == (customer, "up")
    assert len(client.customers.payment_methods.list(customer).data) == 1
    assert books.events_about(session.id) == ["checkout.session.completed"]
    # A second press neither charges nor tells again.
    _press(sandbox, session, "4242424242424242")
    assert len(client.charges.list({"payment_intent": intent.id}).data) == 2
    assert books.events_about(session.id) == ["checkout.session.completed"]


@pytest.mark.parametrize(
    ("card", "answer", "status"),
    [
        ("4242424242424242", None, "complete"),
        ("4000000000000002", None, "open"),
        ("4000002500003155", "approve", "complete"),
        ("4000002500003155", "fail", "open"),
    ],
)
def test_a_setup_saves_the_card_to_its_customer(
    sandbox: Sandbox, books: Books, card: str, answer: str | None, status: str
):
    client = books.client.v1
    customer = books.customer(card=None)
    session = _open(books, mode="setup", currency="usd", customer=customer)
    assert session.payment_status == "no_payment_required"
    _press(sandbox, session, card)
    if answer is not None:
        page = sandbox.request("GET", f"/c/pay/{session.id}", key=None)
        assert "Complete authentication" in page.text
        _press(sandbox, session, card, "authenticate", answer=answer)
    after = client.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
    assert after.status == status
    saved = client.customers.payment_methods.list(customer).data
    if status == "open":
        assert saved == []
        page = sandbox.request("GET", f"/c/pay/{session.id}", key=None)
        assert "role=alert" in page.text
        return
    intent: Any = after.setup_intent
    assert [method.id for method in saved] == [intent.payment_method]
    client.customers.update(
        customer, {"invoice_settings": {"default_payment_method": intent.payment_method}}
    )
    invoice = books.draft(customer, 900)
    client.invoices.finalize_invoice(invoice)
    assert client.invoices.pay(invoice).status == "paid"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mode": "setup"}, "currency"),
        ({"mode": "payment"}, "line_items"),
        ({"mode": "setup", "currency": "usd", "line_items": [ITEM]}, "line_items"),
        ({"mode": "payment", "line_items": [{**ITEM, "price": "price_x"}]}, "line_items[0]"),
        ({"mode": "payment", "line_items": [{"price": "price_x", "quantity": 1}]},
         "line_items[0][price]"),
        ({"mode": "setup", "currency": "usd", "success_url": "javascript:x"}, "success_url"),
        ({"mode": "setup", "currency": "usd", "expires_at": 5}, "expires_at"),
        ({"mode": "subscription"}, "mode"),
        ({"mode": "setup", "currency": "usd", "payment_method_types": ["card"]},
         "payment_method_types"),
    ],
)  # fmt: skip
def test_sessions_that_make_no_sense_are_refused(books: Books, fields: Any, param: str):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        _open(books, **fields)
    assert refused.value.param == param


def test_a_setup_needs_no_currency_where_its_methods_are_named(books: Books):
    session = _open(books, mode="setup", allowed_payment_method_types=["card"])
    assert session.setup_intent is not None


def test_an_expired_session_takes_no_card(sandbox: Sandbox, books: Books):
    sessions = books.client.v1.checkout.sessions
    session = _open(books, mode="setup", currency="usd")
    assert sessions.expire(session.id).status == "expired"
    assert books.events_about(session.id) == ["checkout.session.expired"]
    _press(sandbox, session, "4242424242424242")
    assert sessions.retrieve(session.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
        sessions.expire(session.id)
    assert session.id in [each.id for each in sessions.list({"status": "expired"}).data]


def test_a_session_runs_out_by_itself_after_a_day(tmp_path):
    store = Store(tmp_path / "stripe.sqlite3")
    params = CREATE.read({"mode": "setup", "currency": "usd", "success_url": BACK})
    with store.transaction():
        made: Any = create(Call(store, 1_000_000, "http://127.0.0.1:1", params=params))
    background.run_timers(store, "", made["expires_at"] - 1)
    assert store.find("checkout.session", made["id"])["status"] == "open"  # type: ignore[index]
    background.run_timers(store, "", made["expires_at"])
    assert store.find("checkout.session", made["id"])["status"] == "expired"  # type: ignore[index]
    store.close()


def _portal(books: Books, customer: str, **fields: Any) -> tuple[Any, str]:
    params: Any = {"customer": customer, "return_url": "http://127.0.0.1:9/home", **fields}
    session = books.client.v1.billing_portal.sessions.create(params)
    return session, session.url.removeprefix(books.sandbox.url)


def test_the_portal_replaces_the_card_and_shows_the_invoices(sandbox: Sandbox, books: Books):
    client = books.client.v1
    customer = books.customer(name="<i>Acme</i>")
    [old] = client.customers.payment_methods.list(customer).data
    invoice = books.draft(customer, 1200)
    number = client.invoices.finalize_invoice(invoice).number
    session, path = _portal(books, customer)
    page = sandbox.request("GET", path, key=None).text
    for shown in ("&lt;i&gt;Acme", "•••• 4242", str(number), "$12.00", "127.0.0.1:9/home"):
        assert shown in page
    assert client.billing_portal.configurations.retrieve(
        session.configuration
    ).features.invoice_history.enabled
    sandbox.request("POST", f"{path}/card", {"card": "4000000000000341"}, key=None)
    new, _ = client.customers.payment_methods.list(customer).data
    settings = client.customers.retrieve(customer).invoice_settings
    assert settings is not None
    assert settings.default_payment_method == new.id
    sandbox.request("POST", f"{path}/card", {"card": "4000000000000002"}, key=None)
    assert "role=alert" in sandbox.request("GET", path, key=None).text
    back = {"payment_method": old.id, "do": "default"}
    sandbox.request("POST", f"{path}/change", back, key=None)
    sandbox.request("POST", f"{path}/change", {"payment_method": new.id, "do": "remove"}, key=None)
    left = client.customers.payment_methods.list(customer).data
    assert [method.id for method in left] == [old.id]
    assert client.invoices.pay(invoice).status == "paid"


def test_a_portal_cannot_touch_another_customers_card(sandbox: Sandbox, books: Books):
    owner = books.customer()
    [card] = books.client.v1.customers.payment_methods.list(owner).data
    _, path = _portal(books, books.customer(card=None))
    remove = {"payment_method": card.id, "do": "remove"}
    sandbox.request("POST", f"{path}/change", remove, key=None)
    assert books.client.v1.payment_methods.retrieve(card.id).customer == owner


def test_a_card_flow_asks_the_holder_and_leads_on(sandbox: Sandbox, books: Books):
    customer = books.customer(card=None)
    flow = {
        "type": "payment_method_update",
        "after_completion": {
            "type": "redirect",
            "redirect": {"return_url": "http://127.0.0.1:9/ok"},
        },
    }
    _, path = _portal(books, customer, flow_data=flow)
    assert "Invoices" not in sandbox.request("GET", path, key=None).text
    sandbox.request("POST", f"{path}/card", {"card": "4000002500003155"}, key=None)
    assert "Complete authentication" in sandbox.request("GET", path, key=None).text
    done = sandbox.request("POST", f"{path}/authenticate", {"answer": "approve"}, key=None)
    assert done.headers["Location"] == "http://127.0.0.1:9/ok"
    settings = books.client.v1.customers.retrieve(customer).invoice_settings
    assert settings is not None
    assert settings.default_payment_method is not None


def test_a_configuration_switches_parts_of_the_portal_off(sandbox: Sandbox, books: Books):
    made = books.client.v1.billing_portal.configurations.create(
        {"features": {"invoice_history": {"enabled": True}}, "name": "read only"}
    )
    _, path = _portal(books, books.customer(), configuration=made.id)
    assert "Save card" not in sandbox.request("GET", path, key=None).text
    refused = sandbox.request("POST", f"{path}/card", {"card": "4242424242424242"}, key=None)
    assert refused.status == 404
    unable: Any = {"features": {"subscription_cancel": {"enabled": True}}}
    with pytest.raises(stripe.InvalidRequestError, match="does not simulate"):
        books.client.v1.billing_portal.configurations.update(made.id, unable)


def test_forms_of_other_sites_are_turned_away(sandbox: Sandbox, books: Books):
    _, path = _portal(books, books.customer())
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        form = {"card": "4242424242424242"}
        assert sandbox.request("POST", f"{path}/card", form, headers, key=None).status == 403
