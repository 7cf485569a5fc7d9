"""What the sandbox answers and takes, held against the types of the installed SDK.

Parameters: everything the sandbox accepts exists at Stripe, and what Stripe requires is required.
Answers: no field that Stripe does not have, none missing that a client may rely on.
"""

import json
from typing import Any

import pytest
import stripe

from stripe_sandbox import (
    API_VERSION,
    customers,
    events,
    invoice_lines,
    invoice_states,
    invoices,
    payment_intents,
    payment_methods,
    payments,
    webhook_endpoints,
)
from stripe_sandbox.params import Rows, Shape, Takes
from stripe_sandbox.routes import ENDPOINTS
from tests.stripe_sandbox import sdk
from tests.stripe_sandbox.calls import MORE
from tests.stripe_sandbox.rig import Books, Sandbox

CALLS = {
    "customer_create": customers.CREATE,
    "customer_update": customers.UPDATE,
    "customer_list": customers.LIST,
    "customer_retrieve": customers.RETRIEVE,
    "customer_delete": customers.DELETE,
    "customer_payment_method_list": payment_methods.LIST_OF_CUSTOMER,
    "payment_method_create": payment_methods.CREATE,
    "payment_method_list": payment_methods.LIST,
    "payment_method_retrieve": payment_methods.RETRIEVE,
    "payment_method_attach": payment_methods.ATTACH,
    "payment_method_detach": payment_methods.DETACH,
    "invoice_create": invoices.CREATE,
    "invoice_update": invoices.UPDATE,
    "invoice_list": invoices.LIST,
    "invoice_retrieve": invoices.RETRIEVE,
    "invoice_delete": invoices.DELETE,
    "invoice_add_lines": invoice_lines.ADD_LINES,
    "invoice_line_item_list": invoice_lines.LIST_LINES,
    "invoice_finalize_invoice": invoice_states.FINALIZE,
    "invoice_pay": payments.PAY,
    "invoice_void_invoice": invoice_states.VOID,
    "invoice_mark_uncollectible": invoice_states.MARK_UNCOLLECTIBLE,
    "invoice_item_create": invoice_lines.CREATE_ITEM,
    "invoice_item_list": invoice_lines.LIST_ITEMS,
    "invoice_item_retrieve": invoice_lines.RETRIEVE_ITEM,
    "invoice_payment_list": payment_intents.LIST_LINKS,
    "invoice_payment_retrieve": payment_intents.RETRIEVE_LINK,
    "payment_intent_retrieve": payment_intents.RETRIEVE,
    "event_list": events.LIST,
    "event_retrieve": events.RETRIEVE,
    "webhook_endpoint_create": webhook_endpoints.CREATE,
    "webhook_endpoint_update": webhook_endpoints.UPDATE,
    "webhook_endpoint_retrieve": webhook_endpoints.RETRIEVE,
    "webhook_endpoint_delete": webhook_endpoints.DELETE,
    "webhook_endpoint_list": webhook_endpoints.LIST,
    **MORE,
}
NESTED = {
    ("invoice_add_lines", "Line"): invoice_lines.ADD_LINES.fields["lines"],
    ("customer_create", "Address"): customers.CREATE.fields["address"],
    ("customer_create", "InvoiceSettings"): customers.CREATE.fields["invoice_settings"],
    ("customer_create", "Shipping"): customers.CREATE.fields["shipping"],
    ("invoice_create", "AutomaticTax"): invoices.CREATE.fields["automatic_tax"],
    ("payment_method_create", "Card"): payment_methods.CREATE.fields["card"],
    ("invoice_payment_list", "Payment"): payment_intents.LIST_LINKS.fields["payment"],
}


def test_the_sandbox_speaks_the_version_of_the_installed_sdk(client: stripe.StripeClient):
    assert stripe.api_version == API_VERSION
    answer = client.raw_request("get", "/v1/customers")
    assert answer.headers["Stripe-Version"] == API_VERSION


def test_every_endpoint_is_held_against_the_sdk():
    assert {id(endpoint.takes) for endpoint in ENDPOINTS} == {id(takes) for takes in CALLS.values()}


@pytest.mark.parametrize("call", CALLS)
def test_every_parameter_is_one_of_stripes(call: str):
    takes: Takes = CALLS[call]
    declared = sdk.parameters(call)
    assert set(takes.fields) <= set(declared)
    needed = {name for name, kind in declared.items() if not kind.startswith("NotRequired")}
    assert needed <= set(takes.required)


@pytest.mark.parametrize(("call", "suffix"), NESTED)
def test_every_nested_parameter_is_one_of_stripes(call: str, suffix: str):
    parameter = NESTED[call, suffix]
    shape = parameter.item if isinstance(parameter, Rows) else parameter
    assert isinstance(shape, Shape)
    assert set(shape.fields) <= set(sdk.nested_parameters(call, suffix))


def _get(sandbox: Sandbox, path: str) -> Any:
    answer = sandbox.request("GET", path)
    assert answer.status == 200, answer.text
    return answer.json


@pytest.mark.parametrize("status", ["draft", "open", "paid", "void", "uncollectible"])
def test_invoices_and_what_hangs_on_them_have_stripes_shape(
    sandbox: Sandbox, books: Books, status: str
):
    invoice_id = books.in_status(status)
    invoice = _get(sandbox, f"/v1/invoices/{invoice_id}?expand[]=payments")
    assert sdk.complaints(invoice, "invoice", "Invoice") == []
    for line in invoice["lines"]["data"]:
        assert sdk.complaints(line, "invoice_line_item", "InvoiceLineItem") == []
    [item] = _get(sandbox, f"/v1/invoiceitems?invoice={invoice_id}")["data"]
    assert sdk.complaints(item, "invoice_item", "InvoiceItem") == []
    for link in invoice["payments"]["data"]:
        assert sdk.complaints(link, "invoice_payment", "InvoicePayment") == []
        intent = _get(sandbox, f"/v1/payment_intents/{link['payment']['payment_intent']}")
        assert sdk.complaints(intent, "payment_intent", "PaymentIntent") == []


@pytest.mark.parametrize("card", ["pm_card_chargeCustomerFail", "pm_card_authenticationRequired"])
def test_intents_that_failed_have_stripes_shape(sandbox: Sandbox, books: Books, card: str):
    invoice = books.draft(books.customer(card), 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.CardError):
        books.client.v1.invoices.pay(invoice)
    [link] = _get(sandbox, f"/v1/invoice_payments?invoice={invoice}")["data"]
    intent = _get(sandbox, f"/v1/payment_intents/{link['payment']['payment_intent']}")
    assert sdk.complaints(intent, "payment_intent", "PaymentIntent") == []


def test_customers_cards_endpoints_and_events_have_stripes_shape(sandbox: Sandbox, books: Books):
    address = {"line1": "1 Main St", "country": "US"}
    customer_id = books.customer(address=address, shipping={"name": "A", "address": address})
    customer = _get(sandbox, f"/v1/customers/{customer_id}")
    assert sdk.complaints(customer, "customer", "Customer") == []
    [card] = _get(sandbox, f"/v1/customers/{customer_id}/payment_methods")["data"]
    assert sdk.complaints(card, "payment_method", "PaymentMethod") == []
    endpoint = sandbox.request(
        "POST", "/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/", "enabled_events[0]": "x.y"}
    ).json
    assert sdk.complaints(endpoint, "webhook_endpoint", "WebhookEndpoint") == []
    for event in _get(sandbox, "/v1/events?limit=100")["data"]:
        assert sdk.complaints(event, "event", "Event") == []
    sandbox.request("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")


def test_the_judge_itself_can_say_no(sandbox: Sandbox, books: Books):
    invoice = _get(sandbox, f"/v1/invoices/{books.in_status('draft')}")
    bad = json.loads(json.dumps(invoice)) | {"paid": False, "total": "12", "status": "closed"}
    del bad["amount_due"]
    bad["status_transitions"]["sent_at"] = 1
    said = " ".join(sdk.complaints(bad, "invoice", "Invoice"))
    for wrong in ("paid is not", "total: '12'", "status: 'closed'", "amount_due is absent"):
        assert f"Invoice.{wrong}" in said
    assert "Invoice.status_transitions.sent_at is not" in said
