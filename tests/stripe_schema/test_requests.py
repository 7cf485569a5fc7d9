"""What Stripe takes and what it does not, judged from its package alone."""

import json

import pytest

from tests.stripe_schema.exchange import installed
from tests.stripe_schema.requests import decode

LINES = "/v1/invoices/in_1/add_lines"


@pytest.mark.parametrize(
    ("method", "target", "form"),
    [
        ("POST", "/v1/customers", ""),
        ("POST", "/v1/customers", "name=A&address[line1]=1+Main+St&metadata[a]=1&tax_exempt=none"),
        ("POST", "/v1/customers/cus_1", "metadata=&address=&description="),
        ("POST", "/v1/invoices", "customer=cus_1&auto_advance=false&automatic_tax[enabled]=true"),
        ("POST", LINES, "lines[0][amount]=-34&lines[1][amount]=5&lines[1][metadata][uid]=l1"),
        ("POST", LINES, "lines[0][quantity_decimal]=0.000000000001&lines[0][amount]=1"),
        ("POST", LINES, "lines[0][discounts]=&lines[0][price_data][currency]=usd"
                        "&lines[0][price_data][unit_amount_decimal]=0.0000001"),
        ("GET", "/v1/invoices?limit=3&created[gte]=1&expand[]=data.customer", ""),
        ("GET", "/v1/invoices?created=1790000000&status=open", ""),
        ("GET", "/v1/invoices/in_1?expand[]=payments&expand[]=customer", ""),
        ("POST", "/v1/prices", "currency=usd&product=prod_1&tiers[0][up_to]=inf"),
        ("POST", "/v1/webhook_endpoints", "url=https://a.example&enabled_events[0]=*"),
        ("DELETE", "/v1/invoices/in_1", ""),
        ("POST", "/v1/payment_methods/pm_1/detach", ""),
    ],
)  # fmt: skip
def test_what_stripe_takes_is_taken(method: str, target: str, form: str):
    assert installed().check_request(method, target, form) == []


@pytest.mark.parametrize(
    ("method", "target", "form", "says"),
    [
        ("POST", "/v1/payment_intents", "amount=1&currency=usd&payment_method_types[0]=card",
         "payment_method_types is unknown"),
        ("POST", "/v1/invoiceitems", "customer=cus_1&price=price_1", "price is unknown"),
        ("POST", "/v1/credit_notes", "invoice=in_1&refund=re_1", "refund is unknown"),
        ("POST", "/v1/subscriptions", "customer=cus_1&billing_cycle_anchor=now",
         "billing_cycle_anchor: 'now' is no whole number"),
        ("GET", "/v1/invoices/upcoming?customer=cus_1", "", "customer is unknown"),
        ("POST", "/v1/subscription_items/si_1/usage_records", "quantity=1",
         "POST /v1/subscription_items/si_1/usage_records does not exist"),
        ("PUT", "/v1/customers", "", "PUT /v1/customers does not exist"),
        ("POST", LINES, "", "lines is missing"),
        ("POST", LINES, "lines=", "lines is no array"),
        ("POST", LINES, "lines[0]=5", "lines[0] is no object"),
        ("POST", LINES, "lines[0][amount]=12.5", "lines[0][amount]: '12.5' is no whole number"),
        ("POST", LINES, "lines[0][amount]=1E2", "lines[0][amount]: '1E2' is no whole number"),
        ("POST", LINES, "lines[0][amount]=", "lines[0][amount]: '' is no whole number"),
        ("POST", LINES, "lines[0][quantity_decimal]=1E-7",
         "lines[0][quantity_decimal]: '1E-7' is no plain decimal of at most 12 places"),
        ("POST", LINES, "lines[0][quantity_decimal]=0.1234567890123",
         "lines[0][quantity_decimal]: '0.1234567890123' is no plain decimal of at most 12 places"),
        ("POST", LINES, "lines[0][period][start]=1", "lines[0][period][end] is missing"),
        ("POST", LINES,
         "lines[0][period][start]=1&lines[0][period][end]=1&lines[0][period][begin]=1",
         "lines[0][period][begin] is unknown"),
        ("POST", "/v1/invoices", "collection_method=cash",
         "collection_method: 'cash' is not one of Stripe's"),
        ("POST", "/v1/invoices", "automatic_tax=true", "automatic_tax is no object"),
        ("POST", "/v1/invoices", "auto_advance=1", "auto_advance: '1' is no boolean"),
        ("POST", "/v1/customers", "metadata[a][b]=1", "metadata[a] is no text"),
        ("GET", "/v1/invoices?created[after]=1", "", "created[after] is unknown"),
        ("GET", "/v1/invoices?subscriptions=sub_1", "", "subscriptions is unknown"),
        ("GET", "/v1/invoices?limit=many", "", "limit: 'many' is no whole number"),
        ("POST", "/v1/webhook_endpoints", "url=https://a.example&enabled_events[0]=invoice.settled",
         "enabled_events[0]: 'invoice.settled' is not one of Stripe's"),
    ],
)  # fmt: skip
def test_what_stripe_does_not_take_is_named(method: str, target: str, form: str, says: str):
    assert installed().check_request(method, target, form) == [says]


def test_every_complaint_is_given_and_not_the_first_alone():
    said = installed().check_request("POST", LINES, "lines[0][amount]=x&lines[1][price]=p&a=b")
    assert said == [
        "a is unknown",
        "lines[0][amount]: 'x' is no whole number",
        "lines[1][price] is unknown",
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"event_name": "tokens", "payload": {"value": "7"}}, []),
        ({"event_name": "tokens", "payload": {"value": 7}}, ["payload.value: 7 is no text"]),
        ({"name": "tokens", "payload": {}}, ["name is not Stripe's", "event_name is absent"]),
    ],
)
def test_bodies_of_the_second_api_are_json(body: dict[str, object], says: list[str]):
    sent = json.dumps(body)
    assert installed().check_request("POST", "/v2/billing/meter_events", sent) == says


def test_forms_are_read_as_the_sdk_writes_them():
    assert decode("a[b][0]=1&a[b][1]=2&c=&d[]=x&d[]=y&e=%5B") == {
        "a": {"b": {"0": "1", "1": "2"}},
        "c": "",
        "d": {"0": "x", "1": "y"},
        "e": "[",
    }
