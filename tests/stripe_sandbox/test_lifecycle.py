"""From a customer to a paid invoice and its signed events, as billing will walk it."""

from pathlib import Path

import pytest
import stripe

from tests.stripe_sandbox.rig import Books, Receiver, Sandbox, until


def test_an_invoice_from_customer_to_signed_paid_event(
    client: stripe.StripeClient, receiver: Receiver
):
    endpoint = client.v1.webhook_endpoints.create(
        {
            "url": receiver.url,
            "enabled_events": ["invoice.finalized", "invoice.paid"],
            "api_version": "2026-10-28.endive",
        }
    )
    customer = client.v1.customers.create(
        {"name": "Acme", "email": "bills@acme.example", "metadata": {"tenant": "t1"}},
        {"idempotency_key": "cus:t1:v1"},
    )
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    client.v1.customers.update(
        customer.id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    draft = client.v1.invoices.create(
        {
            "customer": customer.id,
            "currency": "usd",
            "auto_advance": False,
            "collection_method": "charge_automatically",
            "pending_invoice_items_behavior": "exclude",
            "metadata": {"run": "r1"},
        },
        {"idempotency_key": "inv:r1:create:1"},
    )
    assert (draft.status, draft.number, draft.hosted_invoice_url) == ("draft", None, None)
    client.v1.invoices.add_lines(
        draft.id,
        {
            "lines": [
                {
                    "amount": 1234,
                    "description": "1,234,000 input tokens",
                    "period": {"start": 1_793_491_200, "end": 1_796_083_200},
                    "metadata": {"uid": "l1"},
                },
                {"amount": -34, "description": "Credit", "metadata": {"uid": "l2"}},
            ]
        },
        {"idempotency_key": "inv:r1:lines:1:1"},
    )

    lines = client.v1.invoices.line_items.list(draft.id, {"limit": 100}).data
    assert [(line.metadata["uid"], line.amount, line.currency) for line in lines] == [
        ("l1", 1234, "usd"),
        ("l2", -34, "usd"),
    ]
    assert lines[0].parent is not None
    assert lines[0].parent.type == "invoice_item_details"
    assert lines[0].period.end == 1_796_083_200

    open_invoice = client.v1.invoices.finalize_invoice(draft.id, {"auto_advance": False})
    assert open_invoice.status == "open"
    assert open_invoice.number == f"{customer.invoice_prefix}-0001"
    assert (open_invoice.subtotal, open_invoice.total, open_invoice.amount_due) == (1200,) * 3
    assert open_invoice.status_transitions.finalized_at is not None

    paid = client.v1.invoices.pay(draft.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 1200, 0)
    assert paid.payments is not None
    [payment] = paid.payments.data
    assert (payment.status, payment.amount_paid) == ("paid", 1200)
    intent = client.v1.payment_intents.retrieve(str(payment.payment.payment_intent))
    assert (intent.status, intent.amount_received) == ("succeeded", 1200)

    until(lambda: len(receiver.got) == 2, "both webhooks")
    assert sorted(receiver.types()) == ["invoice.finalized", "invoice.paid"]
    for body, signature in receiver.got:
        event = client.construct_event(body, signature, endpoint.secret or "")
        assert event.api_version == "2026-10-28.endive"
        assert event.data.object["id"] == draft.id
        assert client.v1.events.retrieve(event.id).type == event.type
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(*receiver.got[0], "whsec_another")
    client.v1.webhook_endpoints.delete(endpoint.id)


def test_events_of_a_paid_invoice_come_in_the_order_they_happened(books: Books):
    invoice = books.draft(books.customer(), 500)
    books.client.v1.invoices.finalize_invoice(invoice)
    books.client.v1.invoices.pay(invoice)
    assert books.events_about(invoice) == [
        "invoice.created",
        "invoice.updated",
        "invoice.finalized",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
        "invoice.updated",
    ]


def test_an_event_keeps_the_object_as_it_was(books: Books):
    invoice = books.draft(books.customer(), 500)
    books.client.v1.invoices.finalize_invoice(invoice)
    books.client.v1.invoices.pay(invoice)
    events = books.client.v1.events.list({"type": "invoice.finalized", "limit": 1}).data
    assert events[0].data.object["status"] == "open"
    updated = books.client.v1.events.list({"type": "invoice.updated", "limit": 1}).data[0]
    assert updated.data.previous_attributes is not None
    assert updated.data.previous_attributes["status"] == "open"


def test_numbers_are_gapless_per_customer_and_taken_at_finalization_only(books: Books):
    customer = books.customer()
    deleted, second, first = (books.draft(customer, 100) for _ in range(3))
    invoices = books.client.v1.invoices
    invoices.delete(deleted)
    numbers = [invoices.finalize_invoice(each).number for each in (first, second)]
    prefix = books.client.v1.customers.retrieve(customer).invoice_prefix
    assert numbers == [f"{prefix}-0001", f"{prefix}-0002"]


def test_nothing_to_collect_is_paid_at_once(books: Books):
    invoice = books.draft(books.customer(card=None), 700, -700)
    done = books.client.v1.invoices.finalize_invoice(invoice, {"expand": ["payments"]})
    assert (done.status, done.amount_due, done.number is not None) == ("paid", 0, True)
    assert done.payments is not None
    assert done.payments.data == []
    assert books.events_about(invoice)[-3:] == [
        "invoice.paid",
        "invoice.payment_succeeded",
        "invoice.updated",
    ]


@pytest.mark.parametrize(
    ("total", "balance", "amount_due", "status", "ending"),
    [
        (1000, 0, 1000, "open", 0),
        (1000, -300, 700, "open", 0),
        (1000, 250, 1250, "open", 0),
        (1000, -1000, 0, "paid", 0),
        (1000, -1500, 0, "paid", -500),
        (49, 0, 0, "paid", 49),  # below the minimum charge: owed with the next invoice
        (50, 0, 50, "open", 0),
        (-200, 0, 0, "paid", -200),
    ],
)
def test_the_customer_balance_and_the_minimum_charge_decide_what_is_due(
    books: Books, total: int, balance: int, amount_due: int, status: str, ending: int
):
    customer = books.customer(balance=balance)
    invoice = books.client.v1.invoices.finalize_invoice(books.draft(customer, total))
    assert (invoice.subtotal, invoice.total) == (total, total)
    assert (invoice.amount_due, invoice.status) == (amount_due, status)
    assert (invoice.starting_balance, invoice.ending_balance) == (balance, ending)
    assert books.client.v1.customers.retrieve(customer).balance == ending


def test_voiding_gives_the_applied_balance_back(books: Books):
    customer = books.customer(balance=-300)
    invoice = books.draft(customer, 1000)
    books.client.v1.invoices.finalize_invoice(invoice)
    assert books.client.v1.customers.retrieve(customer).balance == 0
    books.client.v1.invoices.void_invoice(invoice)
    assert books.client.v1.customers.retrieve(customer).balance == -300


def test_a_draft_follows_its_customers_name_and_a_finalized_one_does_not(books: Books):
    customer = books.customer()
    invoice = books.draft(customer, 900)
    books.client.v1.customers.update(customer, {"name": "Acme International"})
    assert books.client.v1.invoices.retrieve(invoice).customer_name == "Acme International"
    books.client.v1.invoices.finalize_invoice(invoice)
    books.client.v1.customers.update(customer, {"name": "Other"})
    assert books.client.v1.invoices.retrieve(invoice).customer_name == "Acme International"


def test_state_survives_kill_minus_nine(own_sandbox):
    running: Sandbox = own_sandbox()
    books = Books(running)
    invoice = books.draft(books.customer(), 4200)
    options = {"idempotency_key": "fin:1"}
    before = books.client.v1.invoices.finalize_invoice(invoice, {}, options)  # type: ignore[arg-type]
    running.stop(9)
    running.start()
    again = books.client.v1.invoices.finalize_invoice(invoice, {}, options)  # type: ignore[arg-type]
    assert again.number == before.number
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert books.client.v1.invoices.pay(invoice).status == "paid"


def test_a_second_process_on_the_same_file_does_not_start(own_sandbox):
    running: Sandbox = own_sandbox()
    second = Sandbox(running.data)
    second.log = running.data.with_suffix(".second.log")
    with pytest.raises(AssertionError, match="is a sandbox running on it"):
        second.start()
    second.stop()
    assert running.request("GET", "/healthz").json["status"] == "ok"


def test_it_starts_fast_stays_small_and_stops_at_once(own_sandbox):
    running: Sandbox = own_sandbox()
    status = Path(f"/proc/{running.pid}/status").read_text()
    resident_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    assert resident_kb < 80_000
    assert running.stop() < 3
