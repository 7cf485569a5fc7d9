"""Cards that pay, cards that do not, and what a failed attempt leaves behind."""

import pytest
import stripe

from stripe_sandbox import background, clock
from stripe_sandbox.call import Call
from stripe_sandbox.collection import RETRY_AFTER_S
from stripe_sandbox.store import Document, Store
from tests.stripe_sandbox.rig import Books, Sandbox, until


def test_a_declined_card_leaves_the_invoice_open_and_says_why(books: Books):
    invoice = books.draft(books.customer("pm_card_chargeCustomerFail"), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.CardError) as declined:
        books.client.v1.invoices.pay(invoice)
    assert declined.value.http_status == 402
    assert declined.value.code == "card_declined"
    body = declined.value.json_body
    assert isinstance(body, dict)
    assert body["error"]["decline_code"] == "generic_decline"
    assert body["error"]["payment_intent"]["status"] == "requires_payment_method"
    left = books.client.v1.invoices.retrieve(invoice)
    assert (left.status, left.attempt_count, left.attempted) == ("open", 1, True)
    assert left.amount_remaining == 1200
    assert "invoice.payment_failed" in books.events_about(invoice)


def test_only_the_first_manual_attempt_is_counted(books: Books):
    customer = books.customer("pm_card_chargeCustomerFail")
    invoice = books.draft(customer, 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            books.client.v1.invoices.pay(invoice)
    assert books.client.v1.invoices.retrieve(invoice).attempt_count == 1
    other = books.client.v1.payment_methods.attach("pm_card_mastercard", {"customer": customer})
    assert books.client.v1.invoices.pay(invoice, {"payment_method": other.id}).status == "paid"


def test_a_card_that_asks_for_its_holder_leaves_the_invoice_open(books: Books):
    invoice = books.draft(books.customer("pm_card_authenticationRequired"), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.CardError) as asked:
        books.client.v1.invoices.pay(invoice)
    assert asked.value.code == "invoice_payment_intent_requires_action"
    [link] = books.client.v1.invoice_payments.list({"invoice": invoice}).data
    intent = books.client.v1.payment_intents.retrieve(str(link.payment.payment_intent))
    assert intent.status == "requires_action"
    assert "invoice.payment_action_required" in books.events_about(invoice)


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
    ],
)
def test_some_cards_already_fail_to_attach(books: Books, card: str, code: str, decline_code: str):
    customer = books.customer(card=None)
    with pytest.raises(stripe.CardError) as declined:
        books.client.v1.payment_methods.attach(card, {"customer": customer})
    assert declined.value.code == code
    assert isinstance(declined.value.json_body, dict)
    assert declined.value.json_body["error"]["decline_code"] == decline_code
    assert books.client.v1.customers.payment_methods.list(customer).data == []


def test_without_any_card_paying_is_refused_and_not_an_attempt(books: Books):
    invoice = books.draft(books.customer(card=None), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.InvalidRequestError, match="default_payment_method"):
        books.client.v1.invoices.pay(invoice)
    assert books.client.v1.invoices.retrieve(invoice).attempt_count == 0


def test_another_customers_card_does_not_pay(books: Books):
    books.customer()
    thief, owner = books.customer(card=None), books.customer()
    [card] = books.client.v1.customers.payment_methods.list(owner).data
    invoice = books.draft(thief, 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method"):
        books.client.v1.invoices.pay(invoice, {"payment_method": card.id})


def test_paid_out_of_band_is_paid_without_a_payment(books: Books):
    invoice = books.draft(books.customer(card=None), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    paid = books.client.v1.invoices.pay(invoice, {"paid_out_of_band": True, "expand": ["payments"]})
    assert (paid.status, paid.attempt_count) == ("paid", 0)
    assert paid.payments is not None
    assert [link.status for link in paid.payments.data] == ["canceled"]
    told = books.events_about(invoice)
    assert "invoice.paid" in told
    assert "invoice.payment_succeeded" not in told


def test_numbers_of_test_cards_work_and_other_numbers_are_turned_away(client: stripe.StripeClient):
    card = {"number": "4242424242424242", "exp_month": 4, "exp_year": 2031, "cvc": "123"}
    made = client.v1.payment_methods.create({"type": "card", "card": card})  # type: ignore[arg-type]
    assert made.card is not None
    assert (made.card.last4, made.card.exp_year) == ("4242", 2031)
    card["number"] = "4111111111111111"
    with pytest.raises(stripe.CardError, match="Never enter a real card"):
        client.v1.payment_methods.create({"type": "card", "card": card})  # type: ignore[arg-type]


def test_a_detached_card_is_nobodys_default_and_cannot_return(books: Books):
    customer = books.customer()
    [card] = books.client.v1.payment_methods.list({"customer": customer}).data
    assert books.client.v1.payment_methods.detach(card.id).customer is None
    settings = books.client.v1.customers.retrieve(customer).invoice_settings
    assert settings is not None
    assert settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        books.client.v1.payment_methods.attach(card.id, {"customer": customer})


def test_auto_advance_collects_by_itself(books: Books):
    invoice = books.draft(books.customer(), 1200)
    books.client.v1.invoices.finalize_invoice(invoice, {"auto_advance": True})
    until(lambda: books.client.v1.invoices.retrieve(invoice).status == "paid", "automatic payment")


def test_without_auto_advance_nothing_happens_by_itself(tmp_path):
    store, call, invoice = _open_invoice(tmp_path, auto_advance=False)
    background.run_timers(store, call.base_url, call.now + 365 * 86_400)
    assert _stored(store, invoice)["status"] == "open"
    store.close()


def test_a_failing_card_is_retried_ever_later_and_then_left_alone(tmp_path):
    store, call, invoice = _open_invoice(tmp_path, auto_advance=True, card="4000000000000341")
    now = call.now
    for attempts, wait_s in enumerate([*RETRY_AFTER_S, None], start=1):
        background.run_timers(store, call.base_url, now)
        left = _stored(store, invoice)
        assert (left["status"], left["attempt_count"]) == ("open", attempts)
        if wait_s is None:
            assert left["next_payment_attempt"] is None
            break
        assert left["next_payment_attempt"] == now + wait_s
        background.run_timers(store, call.base_url, now + wait_s - 1)
        assert _stored(store, invoice)["attempt_count"] == attempts
        now += wait_s
    background.run_timers(store, call.base_url, now + 365 * 86_400)
    assert _stored(store, invoice)["attempt_count"] == len(RETRY_AFTER_S) + 1
    customer = store.find("customer", invoice["customer"])
    assert customer is not None
    assert customer["delinquent"] is True
    store.close()


def test_an_advancing_draft_is_finalized_an_hour_later(tmp_path):
    store = Store(tmp_path / "stripe.sqlite3")
    call = _call(store)
    with store.transaction():
        customer = _act(call, "customers.create", {})
        draft = _act(call, "invoices.create", {"customer": customer["id"], "auto_advance": True})
    assert draft["automatically_finalizes_at"] == call.now + 3600
    background.run_timers(store, call.base_url, call.now + 3599)
    assert _stored(store, draft)["status"] == "draft"
    background.run_timers(store, call.base_url, call.now + 3600)
    assert _stored(store, draft)["status"] == "paid"  # it had no lines: nothing to collect
    store.close()


def _call(store: Store) -> Call:
    return Call(store=store, now=clock.now_s(), base_url="http://127.0.0.1:1")


def _act(call: Call, act: str, params: dict, **path: str) -> Document:
    import stripe_sandbox.customers
    import stripe_sandbox.invoice_lines
    import stripe_sandbox.invoice_states
    import stripe_sandbox.invoices

    module, name = act.split(".")
    made = getattr(getattr(stripe_sandbox, module), name)(
        Call(call.store, call.now, call.base_url, path=path, params=params)
    )
    assert isinstance(made, dict)
    return made


def _open_invoice(
    tmp_path, *, auto_advance: bool, card: str = "4242424242424242"
) -> tuple[Store, Call, Document]:
    magic = {"4242424242424242": "pm_card_visa", "4000000000000341": "pm_card_chargeCustomerFail"}
    store = Store(tmp_path / "stripe.sqlite3")
    call = _call(store)
    with store.transaction():
        settings = {"default_payment_method": magic[card]}
        customer = _act(
            call,
            "customers.create",
            {"payment_method": magic[card], "invoice_settings": settings},
        )
        draft = _act(call, "invoices.create", {"customer": customer["id"]})
        _act(call, "invoice_lines.add_lines", {"lines": [{"amount": 500}]}, id=draft["id"])
        invoice = _act(
            call, "invoice_states.finalize", {"auto_advance": auto_advance}, id=draft["id"]
        )
    return store, call, invoice


def _stored(store: Store, invoice: Document) -> Document:
    found = store.find("invoice", invoice["id"])
    assert found is not None
    return found


def test_every_declared_test_card_can_be_asked_for(sandbox: Sandbox):
    from stripe_sandbox.cards import BY_MAGIC_ID

    for magic in BY_MAGIC_ID:
        assert sandbox.request("GET", f"/v1/payment_methods/{magic}").status == 200
