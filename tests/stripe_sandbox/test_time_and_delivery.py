"""Test clocks, thin events, and webhooks doubled, lost, late, turned round, sent again."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books, Receiver, Sandbox, until

START = 2_500_000_000


def _advance(books: Books, clock: str, to: int) -> Any:
    clocks = books.client.v1.test_helpers.test_clocks
    asked = clocks.advance(clock, {"frozen_time": to})
    assert asked.status == "advancing"
    until(lambda: clocks.retrieve(clock).status == "ready", "advancing")
    return clocks.retrieve(clock)


def test_a_customer_on_a_test_clock_lives_by_it(books: Books):
    client = books.client.v1
    clock = client.test_helpers.test_clocks.create({"frozen_time": START, "name": "c"})
    customer = books.customer("pm_card_chargeCustomerFail", test_clock=clock.id)
    draft = books.draft(customer, 1200, auto_advance=True)
    made = client.invoices.retrieve(draft)
    assert (made.created, made.test_clock) == (START, clock.id)
    assert made.automatically_finalizes_at == START + 3600
    assert _advance(books, clock.id, START + 3599).frozen_time == START + 3599
    assert client.invoices.retrieve(draft).status == "draft"
    _advance(books, clock.id, START + 30 * 86_400)
    after = client.invoices.retrieve(draft)
    assert (after.status, after.attempt_count) == ("open", 4)
    assert after.status_transitions.finalized_at == START + 3600
    events = client.events.list({"type": "invoice.payment_failed", "limit": 100}).data
    told = [event.created for event in events if event.data.object["id"] == draft]
    days = (0, 3, 3 + 5, 3 + 5 + 7)
    page = client.billing_portal.sessions.create({"customer": customer})
    assert page.created < START  # a page is opened now, not then
    assert told[::-1] == [START + 3600 + day * 86_400 for day in days]
    with pytest.raises(stripe.InvalidRequestError, match="forward only"):
        client.test_helpers.test_clocks.advance(clock.id, {"frozen_time": START})
    assert client.test_helpers.test_clocks.delete(clock.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError):
        client.invoices.create({"customer": customer})


def test_a_test_clock_has_room_for_three_customers(books: Books):
    clock = books.client.v1.test_helpers.test_clocks.create({"frozen_time": START})
    for _ in range(3):
        books.customer(card=None, test_clock=clock.id)
    for wrong in (clock.id, "clock_none"):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            books.customer(card=None, test_clock=wrong)
        assert refused.value.param == "test_clock"


def test_an_event_has_a_thin_form(books: Books):
    invoice = books.in_status("paid")
    [event] = books.client.v1.events.list({"type": "invoice.paid", "limit": 1}).data
    thin: Any = books.client.v2.core.events.retrieve(event.id)
    assert (thin.type, thin.snapshot_event) == ("v1.invoice.paid", event.id)
    assert thin.related_object.id == invoice
    assert thin.fetch_related_object().status == "paid"


@pytest.fixture
def told(movable: Books, receiver: Receiver) -> Iterator[tuple[Books, Receiver, str]]:
    """A sandbox that may be changed, with one endpoint that hears of customers; and its id."""
    endpoint = movable.client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created"]}
    )
    yield movable, receiver, endpoint.id
    movable.client.v1.webhook_endpoints.delete(endpoint.id)


def test_webhooks_are_doubled_lost_late_and_turned_round_on_demand(told):
    books, receiver, _ = told
    control = books.sandbox.control

    def create(count: int) -> list[str]:
        return [books.customer(card=None) for _ in range(count)]

    control("/settings", {"webhook_duplicates": 2})
    create(1)
    until(lambda: len(receiver.got) == 3, "three deliveries")
    assert len(set(receiver.ids())) == 1
    control("/settings", {"webhook_duplicates": 0, "webhook_drop": 1})
    create(2)
    until(lambda: len(receiver.got) == 4, "the one that was not lost")
    assert control("", method="GET")["deliveries"]["abandoned"] == 1
    control("/settings", {"webhook_delay_ms": 300})
    began = time.monotonic()
    create(1)
    until(lambda: len(receiver.got) == 5, "the late one")
    assert time.monotonic() - began >= 0.3
    control("/settings", {"webhook_delay_ms": 0, "webhook_hold": True})
    created = create(3)
    time.sleep(0.1)
    assert len(receiver.got) == 5
    assert control("/webhooks/release", {"order": "reverse"}) == {"released": 3}
    until(lambda: len(receiver.got) == 8, "the held ones")
    bodies = [body.decode() for body, _ in receiver.got[5:]]
    assert [customer in body for customer, body in zip(reversed(created), bodies, strict=True)] == [
        True
    ] * 3


def test_an_event_is_sent_again_from_its_page_and_from_the_door(told):
    books, receiver, _ = told
    books.customer(card=None)
    until(lambda: len(receiver.got) == 1, "the first delivery")
    [event_id] = receiver.ids()
    listed = books.sandbox.request("GET", "/events", key=None).text
    assert f"href='/events/{event_id}'" in listed
    until(
        lambda: "delivered" in books.sandbox.request("GET", f"/events/{event_id}", key=None).text,
        "the delivery on the page",
    )
    page = books.sandbox.request("GET", f"/events/{event_id}", key=None).text
    for shown in ("customer.created", "1 tries", "2xx", "/hook?from=stripe", "Send again"):
        assert shown in page
    books.sandbox.request("POST", f"/events/{event_id}/resend", {}, key=None)
    assert books.sandbox.control(f"/events/{event_id}/resend") == {"deliveries": 1}
    until(lambda: receiver.ids() == [event_id] * 3, "both again")
    front = books.sandbox.request("GET", "/", key=None).text
    assert re.search(r"<b>\d+</b>customers", front)


def test_a_rotated_secret_signs_with_the_old_one_until_that_expires(told):
    books, receiver, endpoint = told
    fresh = books.sandbox.control(
        f"/webhook_endpoints/{endpoint}/rotate_secret", {"old_expires_in_s": 3600}
    )["secret"]
    books.customer(card=None)
    until(lambda: len(receiver.got) == 1, "a doubly signed delivery")
    body, signature = receiver.got[0]
    assert signature.count("v1=") == 2
    assert books.client.construct_event(body, signature, fresh).type == "customer.created"
    books.sandbox.control("/clock", {"advance_s": 3601})
    books.customer(card=None)
    until(lambda: len(receiver.got) == 2, "a delivery after the old secret's end")
    body, signature = receiver.got[1]
    assert signature.count("v1=") == 1
    books.client.construct_event(body, signature, fresh)


def test_the_bank_decides_a_dispute_through_the_door(sandbox: Sandbox, books: Books):
    books.in_status("paid")
    [charge] = books.client.v1.charges.list({"limit": 1}).data
    opened = sandbox.control(f"/charges/{charge.id}/dispute", {"reason": "product_not_received"})
    assert opened["reason"] == "product_not_received"
    sandbox.control(f"/disputes/{opened['id']}", {"status": "won"})
    assert books.client.v1.disputes.retrieve(opened["id"]).status == "won"
    assert books.events_about(opened["id"])[-1] == "charge.dispute.funds_reinstated"
