"""Every member that can be set is shown as it was set, and every filter of a list filters.

All answers on the way are judged by `tests.stripe_schema`, so this is also where members that
are otherwise null get a value to be judged.
"""

from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books, Sandbox

ADDRESS = {
    "city": "Dublin",
    "country": "IE",
    "line1": "1 Main St",
    "line2": "Floor 2",
    "postal_code": "D01",
    "state": "L",
}
CUSTOMER: dict[str, Any] = {
    "address": ADDRESS,
    "balance": -5,
    "business_name": "Acme Ltd",
    "description": "a tenant",
    "email": "bills@acme.example",
    "individual_name": "Ada Acme",
    "metadata": {"tenant": "t1"},
    "name": "Acme",
    "phone": "+353 1 000",
    "preferred_locales": ["en", "de"],
    "shipping": {"address": ADDRESS, "name": "Store", "phone": "+353 1 001"},
    "tax_exempt": "reverse",
}
INVOICE: dict[str, Any] = {
    "auto_advance": True,
    "collection_method": "send_invoice",
    "custom_fields": [{"name": "PO", "value": "42"}],
    "description": "October",
    "due_date": 1_900_000_000,
    "footer": "Thank you",
    "metadata": {"run": "r1"},
    "statement_descriptor": "ACME",
}
LINE: dict[str, Any] = {
    "amount": 100,
    "description": "Tokens",
    "discountable": False,
    "metadata": {"uid": "l1"},
    "period": {"start": 1_793_491_200, "end": 1_796_083_200},
}


def shown(answer: Any, sent: dict[str, Any]) -> dict[str, Any]:
    """Of an answer, what was sent."""
    return {name: answer.to_dict(for_json=True)[name] for name in sent}


def test_a_customer_shows_what_it_was_given(books: Books):
    customers: Any = books.client.v1.customers
    made = customers.create(
        {**CUSTOMER, "invoice_prefix": "ACME", "invoice_settings": {"footer": "f"}}
    )
    assert shown(made, CUSTOMER) == CUSTOMER
    assert (made.invoice_prefix, made.invoice_settings.footer) == ("ACME", "f")
    bare = books.customer(card=None)
    assert shown(customers.update(bare, CUSTOMER), CUSTOMER) == CUSTOMER
    bare = customers.update(bare, {"address": "", "shipping": "", "phone": "", "metadata": ""})
    assert (bare.address, bare.shipping, bare.phone, bare.metadata.to_dict()) == (None,) * 3 + ({},)


def test_an_address_for_goods_can_go_only_with_the_rest(sandbox: Sandbox, books: Books):
    """As at Stripe, where `shipping[address]` alone cannot be unset."""
    path = f"/v1/customers/{books.customer(card=None)}"
    answer = sandbox.request("POST", path, {"shipping[name]": "A", "shipping[address]": ""})
    assert (answer.status, answer.error["param"]) == (400, "shipping[address]")


def test_a_card_shows_what_it_was_given(books: Books):
    methods: Any = books.client.v1.payment_methods
    details = {"address": ADDRESS, "email": "a@acme.example", "name": "Ada", "phone": "1"}
    given = {"allow_redisplay": "always", "billing_details": details, "metadata": {"a": "1"}}
    number = {"number": "4242424242424242", "exp_month": 4, "exp_year": 2031, "cvc": "123"}
    made = methods.create({"type": "card", "card": number, **given})
    given["billing_details"] = {**details, "tax_id": None}
    assert shown(made, given) == given
    assert shown(methods.retrieve(made.id), given) == given
    owner = books.customer(card=None)
    methods.attach(made.id, {"customer": owner})
    assert [each.id for each in methods.list({"customer": owner, "type": "card"}).data] == [made.id]


def test_an_invoice_shows_what_it_was_given(books: Books):
    invoices: Any = books.client.v1.invoices
    customer = books.customer(**CUSTOMER)
    made = invoices.create({"customer": customer, "automatic_tax": {"enabled": False}, **INVOICE})
    assert shown(made, INVOICE) == INVOICE
    assert made.automatically_finalizes_at == made.created + 3600
    assert made.customer_address.to_dict() == ADDRESS
    assert made.customer_tax_exempt == "reverse"
    updated = invoices.update(
        books.draft(customer), {"automatic_tax": {"enabled": False}} | INVOICE
    )
    assert shown(updated, INVOICE) == INVOICE
    later = invoices.update(updated.id, {"custom_fields": "", "footer": "", "auto_advance": False})
    assert (later.custom_fields, later.footer, later.automatically_finalizes_at) == (None,) * 3


def test_a_line_and_an_item_show_what_they_were_given(books: Books):
    customer = books.customer()
    draft = books.draft(customer)
    lines: Any = {"lines": [LINE], "invoice_metadata": {"run": "r2"}}
    filled = books.client.v1.invoices.add_lines(draft, lines)
    assert shown(filled, {"metadata": {}}) == {"metadata": {"run": "r2"}}
    [line] = books.client.v1.invoices.line_items.list(draft).data
    assert shown(line, LINE) == LINE
    item: Any = {"customer": customer, "invoice": draft, **LINE}
    made = books.client.v1.invoice_items.create(item)
    assert shown(made, item) == item
    assert shown(books.client.v1.invoice_items.retrieve(made.id), item) == item


def test_an_endpoint_shows_what_it_was_given(books: Books):
    endpoints: Any = books.client.v1.webhook_endpoints
    given = {
        "url": "http://127.0.0.1:9/members",
        "enabled_events": ["invoice.voided"],
        "description": "d",
        "metadata": {"a": "1"},
    }
    made = endpoints.create({**given, "connect": False})
    assert shown(made, given) == given
    moved = {"url": "http://127.0.0.1:9/moved", "metadata": {"a": "2"}, "description": "e"}
    assert shown(endpoints.update(made.id, moved), moved) == moved
    endpoints.delete(made.id)


@pytest.mark.parametrize(
    ("card", "status", "has_failed"),
    [
        ("pm_card_chargeCustomerFail", "requires_payment_method", True),
        ("pm_card_authenticationRequired", "requires_action", False),
    ],
)
def test_an_intent_shows_why_it_is_not_paid(books: Books, card: str, status: str, has_failed: bool):
    """The last error, or the action it asks for, and the secret to go on with."""
    invoices: Any = books.client.v1.invoices
    invoice = books.draft(books.customer(card), 1200)
    invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.CardError):
        invoices.pay(invoice, {"off_session": True})
    wanted = ["payments.data.payment.payment_intent", "confirmation_secret"]
    found = invoices.retrieve(invoice, {"expand": wanted})
    intent = found.payments.data[0].payment.payment_intent
    assert intent.status == status
    assert (intent.last_payment_error is not None) is has_failed
    assert (intent.next_action is None) is has_failed
    assert found.confirmation_secret.client_secret == intent.client_secret
    intents: Any = books.client.v1.payment_intents
    assert intents.retrieve(intent.id, {"client_secret": intent.client_secret}).id == intent.id


FILTERS = {
    "/v1/invoiceitems": [
        "customer={customer}",
        "pending=false&invoice={invoice}",
        "created[gte]=1",
    ],
    "/v1/invoice_payments": [
        "status=paid&invoice={invoice}",
        "created[lte]=1999999999&invoice={invoice}",
        "payment[type]=payment_intent&payment[payment_intent]={intent}",
    ],
    "/v1/invoices": ["collection_method=charge_automatically&customer={customer}"],
    "/v1/events": ["created[gt]=1&limit=1", "type=invoice.paid&created[gt]=1"],
    "/v1/payment_methods": ["customer={customer}&type=card&limit=1"],
    "/v1/customers/{customer}/payment_methods": ["type=card&limit=1"],
    "/v1/customers": ["created[gt]=1&limit=2"],
}


@pytest.mark.parametrize("path", FILTERS)
def test_filters_find_what_is_meant_and_pages_go_on(sandbox: Sandbox, books: Books, path: str):
    customer = books.customer()
    invoice = books.draft(customer, 700, 500)
    books.client.v1.invoices.finalize_invoice(invoice)
    books.client.v1.invoices.pay(invoice)
    [link] = sandbox.request("GET", f"/v1/invoice_payments?invoice={invoice}").json["data"]
    names = {"customer": customer, "invoice": invoice, "intent": link["payment"]["payment_intent"]}
    address = path.format(**names)
    for wanted in FILTERS[path]:
        found = sandbox.request("GET", f"{address}?{wanted.format(**names)}").json["data"]
        assert found, wanted
        for cursor in ("starting_after", "ending_before"):
            query = f"{cursor}={found[0]['id']}&limit=1"
            after = sandbox.request("GET", f"{address}?{query}")
            assert found[0]["id"] not in [each["id"] for each in after.json["data"]]
    nobody = sandbox.request("GET", f"/v1/invoiceitems?customer={books.customer(card=None)}")
    assert nobody.json["data"] == []
