"""Test cards: which attach, which pay, and what a decline says."""

from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.conformance.account import Account


def test_a_good_card_attaches_and_is_listed(account: Account):
    customer = account.customer()
    [card] = account.v1.customers.payment_methods.list(customer).data
    assert (card.customer, card.type, card.card.last4) == (customer, "card", "4242")


def test_a_card_that_declines_is_not_attached(account: Account):
    customer = account.customer(card=None)
    with pytest.raises(stripe.CardError) as declined:
        account.v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer})
    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    assert error_of(declined.value)["decline_code"] == "generic_decline"
    assert account.v1.customers.payment_methods.list(customer).data == []


def test_a_charge_that_is_declined_says_so_with_its_intent_and_leaves_the_invoice_open(
    account: Account,
):
    customer = account.customer("pm_card_chargeCustomerFail")
    invoice = account.open(customer, 1200)
    with pytest.raises(stripe.CardError) as declined:
        account.v1.invoices.pay(invoice)
    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    error = error_of(declined.value)
    assert error["decline_code"] == "generic_decline"
    assert error["payment_intent"]["status"] == "requires_payment_method"
    left = account.v1.invoices.retrieve(invoice)
    assert (left.status, left.attempted, left.attempt_count) == ("open", True, 1)
    account.default_card(customer, "pm_card_visa")
    assert account.v1.invoices.pay(invoice).status == "paid"


def test_without_a_card_there_is_nothing_to_pay_with(account: Account):
    invoice = account.open(account.customer(card=None), 1200)
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.invoices.pay(invoice)
    assert account.v1.invoices.retrieve(invoice).status == "open"


def test_a_detached_card_cannot_return(account: Account):
    customer = account.customer(card=None)
    card = account.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    assert account.v1.payment_methods.detach(card).customer is None
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.payment_methods.attach(card, {"customer": customer})


def test_card_numbers_are_not_for_everybody(account: Account):
    card = {"number": "4242424242424242", "exp_month": 4, "exp_year": 2031, "cvc": "123"}
    with account.deviation("raw_card_numbers"), pytest.raises(stripe.StripeError):
        account.v1.payment_methods.create({"type": "card", "card": card})


def test_a_direct_debit_is_a_payment_method(account: Account):
    details = {"name": "Ada", "email": "ada@acme.example"}
    with account.deviation("other_ways_to_pay"):
        made = account.v1.payment_methods.create(
            {
                "type": "sepa_debit",
                "sepa_debit": {"iban": "DE89370400440532013000"},
                "billing_details": details,
            }
        )
        assert made.type == "sepa_debit"


def error_of(refused: stripe.StripeError) -> dict[str, Any]:
    body = refused.json_body
    assert isinstance(body, dict)
    error: dict[str, Any] = body["error"]
    return error
