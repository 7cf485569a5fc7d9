"""From draft to every end an invoice can come to."""

import pytest
import stripe

from tests.stripe_sandbox.conformance.account import Account


def test_a_draft_is_filled_read_back_finalized_and_paid(account: Account):
    customer = account.customer(metadata={"tenant": "t1"})
    draft = account.draft(customer)
    before = account.v1.invoices.retrieve(draft)
    assert (before.status, before.number, before.hosted_invoice_url) == ("draft", None, None)
    lines = [
        {
            "amount": 1234,
            "description": "1,234,000 input tokens",
            "period": {"start": 1_793_491_200, "end": 1_796_083_200},
            "metadata": {"uid": "l1"},
        },
        {"amount": -34, "description": "Credit", "metadata": {"uid": "l2"}},
    ]
    account.v1.invoices.add_lines(draft, {"lines": lines}, account.key("lines"))
    found = account.v1.invoices.line_items.list(draft, {"limit": 100}).data
    assert sorted((line.metadata["uid"], line.amount, line.currency) for line in found) == [
        ("l1", 1234, "usd"),
        ("l2", -34, "usd"),
    ]
    assert {line.parent.type for line in found} == {"invoice_item_details"}
    opened = account.v1.invoices.finalize_invoice(draft, {"auto_advance": False})
    assert (opened.status, opened.subtotal, opened.total, opened.amount_due) == (
        "open",
        1200,
        1200,
        1200,
    )
    assert opened.number
    assert opened.hosted_invoice_url.startswith("http")
    assert opened.status_transitions.finalized_at is not None
    paid = account.v1.invoices.pay(draft, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 1200, 0)
    [payment] = paid.payments.data
    assert (payment.status, payment.amount_paid) == ("paid", 1200)
    intent = account.v1.payment_intents.retrieve(str(payment.payment.payment_intent))
    assert (intent.status, intent.amount_received) == ("succeeded", 1200)
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.invoices.pay(draft)


def test_a_second_finalization_is_refused_and_changes_nothing(account: Account):
    invoice = account.open(account.customer(), 500)
    number = account.v1.invoices.retrieve(invoice).number
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.v1.invoices.finalize_invoice(invoice)
    assert refused.value.http_status == 400
    assert account.v1.invoices.retrieve(invoice).number == number


def test_a_finalized_invoice_takes_no_more_lines(account: Account):
    invoice = account.open(account.customer(), 500)
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.invoices.add_lines(invoice, {"lines": [{"amount": 1, "description": "late"}]})
    assert account.v1.invoices.retrieve(invoice).total == 500


def test_void_is_an_end(account: Account):
    invoice = account.open(account.customer(), 500)
    voided = account.v1.invoices.void_invoice(invoice)
    assert (voided.status, voided.number is not None) == ("void", True)
    assert voided.status_transitions.voided_at is not None
    for move in ("pay", "void_invoice", "mark_uncollectible"):
        with pytest.raises(stripe.InvalidRequestError):
            getattr(account.v1.invoices, move)(invoice)


def test_uncollectible_can_still_be_paid(account: Account):
    invoice = account.open(account.customer(), 500)
    assert account.v1.invoices.mark_uncollectible(invoice).status == "uncollectible"
    assert account.v1.invoices.pay(invoice).status == "paid"


def test_a_draft_is_deleted_and_never_voided(account: Account):
    draft = account.draft(account.customer(), 500)
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.invoices.void_invoice(draft)
    assert account.v1.invoices.delete(draft).deleted is True
    with pytest.raises(stripe.InvalidRequestError) as gone:
        account.v1.invoices.retrieve(draft)
    assert (gone.value.http_status, gone.value.code) == (404, "resource_missing")


def test_nothing_to_collect_is_paid_at_once(account: Account):
    draft = account.draft(account.customer(card=None), 700, -700)
    done = account.v1.invoices.finalize_invoice(draft)
    assert (done.status, done.amount_due, done.total) == ("paid", 0, 0)


def test_below_the_minimum_charge_is_paid_and_owed_by_balance(account: Account):
    customer = account.customer()
    done = account.v1.invoices.finalize_invoice(account.draft(customer, 10))
    assert (done.status, done.total, done.amount_due, done.ending_balance) == ("paid", 10, 0, 10)
    assert account.v1.customers.retrieve(customer).balance == 10


def test_the_balance_is_applied_at_finalization(account: Account):
    customer = account.customer(balance=-300)
    done = account.v1.invoices.finalize_invoice(account.draft(customer, 1000))
    assert (done.total, done.amount_due) == (1000, 700)
    assert (done.starting_balance, done.ending_balance) == (-300, 0)


def test_what_was_paid_elsewhere_is_recorded_without_a_charge(account: Account):
    invoice = account.open(account.customer(card=None), 500)
    paid = account.v1.invoices.pay(invoice, {"paid_out_of_band": True})
    assert (paid.status, paid.attempt_count) == ("paid", 0)


def test_a_decimal_price_times_a_decimal_quantity_is_a_line(account: Account):
    draft = account.draft(account.customer())
    price = {
        "currency": "usd",
        "unit_amount_decimal": "0.5",
        "product_data": {"name": "Tokens"},
    }
    with account.deviation("prices_times_quantities"):
        account.v1.invoices.add_lines(
            draft, {"lines": [{"quantity_decimal": "200", "price_data": price}]}
        )
        assert account.v1.invoices.retrieve(draft).total == 100


def test_an_item_may_wait_for_its_invoice(account: Account):
    customer = account.customer()
    with account.deviation("items_wait_for_an_invoice"):
        item = account.v1.invoice_items.create(
            {"customer": customer, "amount": 100, "currency": "usd"}
        )
        assert item.invoice is None
        account.v1.invoice_items.delete(item.id)
