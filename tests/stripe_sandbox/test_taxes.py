"""Taxes on invoices: by rates, by given amounts, and automatic; each to the cent."""

import random
from typing import Any

import pytest
import stripe

from stripe_sandbox import taxes
from tests.stripe_sandbox.rig import Books, Sandbox

# amount, rates (i = inclusive, e = exclusive), taxes as computed by hand, total.
BY_HAND = """
10000  e19            1900            11900
10000  i19            1597            10000
10000  e7.25          725             10725
10000  e5,e9.975      500,998         11498
10000  i10,e5         909,455         10455
50     e1             1               51
-50    e1             -1              -51
49     e1             0               49
10000  e0             0               10000
333    i19            53              333
"""
ROWS = [line.split() for line in BY_HAND.strip().splitlines()]


def _rate(text: str, place: int = 0) -> dict[str, Any]:
    return {"id": f"txr_{place}", "inclusive": text[0] == "i", "_percentage": text[1:]}


@pytest.mark.parametrize(("amount", "rates", "expected", "total"), ROWS)
def test_a_line_is_taxed_as_computed_by_hand(amount: str, rates: str, expected: str, total: str):
    asked = [_rate(text, place) for place, text in enumerate(rates.split(","))]
    found = taxes.of_amount(int(amount), asked, "none", "standard_rated")
    assert [tax["amount"] for tax in found] == [int(each) for each in expected.split(",")]
    assert int(amount) + taxes.amount_of(found, "exclusive") == int(total)


def test_inclusive_tax_lies_inside_and_exclusive_on_top_for_any_amount():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(500):
        amount = chance.randrange(-(10**9), 10**9)
        inside = _rate(f"i{chance.randrange(1, 30)}.{chance.randrange(10_000):04d}")
        [tax] = taxes.of_amount(amount, [inside], "none", "standard_rated")
        net = amount - tax["amount"]
        [again] = taxes.of_amount(net, [{**inside, "inclusive": False}], "none", "standard_rated")
        assert tax["taxable_amount"] == net
        assert abs(again["amount"] - tax["amount"]) <= 1
        for waived in ("exempt", "reverse"):
            [none] = taxes.of_amount(amount, [inside], waived, "standard_rated")
            assert none["amount"] == 0


def _rates(books: Books, *texts: str) -> list[str]:
    return [
        books.client.v1.tax_rates.create(
            {
                "display_name": "VAT",
                "inclusive": text[0] == "i",
                "percentage": text[1:],  # type: ignore[typeddict-item]
            }
        ).id
        for text in texts
    ]


def test_default_rates_tax_every_line_but_those_with_their_own(sandbox: Sandbox, books: Books):
    client = books.client.v1
    nineteen, seven = _rates(books, "e19", "i7")
    draft = books.draft(books.customer(), default_tax_rates=[nineteen])
    lines: Any = [
        {"amount": 1000, "description": "Tokens"},
        {"amount": 1070, "description": "Book", "tax_rates": [seven]},
    ]
    invoice = client.invoices.add_lines(draft, {"lines": lines})
    assert (invoice.subtotal, invoice.total) == (2070, 2260)
    assert (invoice.total_excluding_tax, invoice.subtotal_excluding_tax) == (2000, 2000)
    assert [(tax.amount, tax.tax_behavior) for tax in invoice.total_taxes] == [
        (190, "exclusive"),
        (70, "inclusive"),
    ]
    first, second = (line for line in client.invoices.line_items.list(draft).data)
    assert first.taxes[0].tax_rate_details.tax_rate == nineteen
    assert [each.id for each in invoice.default_tax_rates] == [nineteen]
    assert second.taxes[0].taxable_amount == 1000
    open_invoice = client.invoices.finalize_invoice(draft)
    assert open_invoice.amount_due == 2260
    page = sandbox.request("GET", str(open_invoice.hosted_invoice_url).removeprefix(sandbox.url))
    for shown in ("VAT 19%", "$1.90", "VAT 7% (included)", "$0.70", "$22.60"):
        assert shown in page.text
    note = client.credit_notes.create(
        {
            "invoice": draft,
            "lines": [{"type": "invoice_line_item", "invoice_line_item": first.id, "amount": 500}],
        }
    )
    assert (note.subtotal, note.total, note.total_excluding_tax) == (500, 595, 500)
    assert note.total_taxes[0].amount == 95


def test_given_tax_amounts_are_taken_as_they_are(books: Books):
    data = {"display_name": "US tax", "inclusive": False, "percentage": "8.875"}
    lines: Any = [
        {
            "amount": 1000,
            "tax_amounts": [{"amount": 89, "taxable_amount": 1000, "tax_rate_data": data}],
        }
    ] * 2
    draft = books.draft(books.customer())
    invoice = books.client.v1.invoices.add_lines(draft, {"lines": lines})
    assert (invoice.total, invoice.total_taxes[0].amount) == (2178, 178)
    assert len(invoice.total_taxes) == 1  # the same rate was found again, not made twice


@pytest.mark.parametrize(
    ("address", "total", "status"),
    [
        ({"country": "DE"}, 1190, "complete"),
        ({"country": "US", "state": "NY"}, 1040, "complete"),
        ({"country": "US", "state": "OR"}, 1000, "complete"),
        ({"country": "US"}, 1000, "requires_location_inputs"),
        (None, 1000, "requires_location_inputs"),
    ],
)
def test_automatic_tax_goes_by_the_customers_address(
    books: Books, address: Any, total: int, status: str
):
    client = books.client.v1
    customer = books.customer(**({"address": address} if address else {}))
    draft = books.draft(customer, 1000, automatic_tax={"enabled": True})
    invoice = client.invoices.retrieve(draft)
    assert (invoice.total, invoice.automatic_tax.status) == (total, status)
    if status == "complete":
        assert client.invoices.finalize_invoice(draft).amount_due == total
        return
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.invoices.finalize_invoice(draft)
        assert refused.value.code == "customer_tax_location_invalid"
    left = client.invoices.retrieve(draft)
    assert (left.status, left.number) == ("draft", None)
    assert left.last_finalization_error.code == "customer_tax_location_invalid"
    assert books.events_about(draft).count("invoice.finalization_failed") == 2
    client.customers.update(customer, {"address": {"country": "FR"}})
    fixed = client.invoices.finalize_invoice(draft)
    assert (fixed.total, fixed.last_finalization_error) == (1200, None)


def test_automatic_tax_takes_neither_negative_lines_nor_rates_by_hand(books: Books):
    client = books.client.v1
    [rate] = _rates(books, "e19")
    customer = books.customer(address={"country": "DE"})
    draft = books.draft(customer, 1000, automatic_tax={"enabled": True})
    with pytest.raises(stripe.InvalidRequestError, match="negative"):
        client.invoices.add_lines(draft, {"lines": [{"amount": -1}]})
    with pytest.raises(stripe.InvalidRequestError, match="manual tax rates"):
        client.invoices.update(draft, {"default_tax_rates": [rate]})
    with pytest.raises(stripe.InvalidRequestError, match="manual tax rates"):
        client.invoices.add_lines(draft, {"lines": [{"amount": 1, "tax_rates": [rate]}]})
    negative = books.draft(customer, -5)
    with pytest.raises(stripe.InvalidRequestError, match="negative"):
        client.invoices.update(negative, {"automatic_tax": {"enabled": True}})
    assert client.invoices.retrieve(draft).total == 1190


@pytest.mark.parametrize(
    ("exempt", "reason"), [("exempt", "customer_exempt"), ("reverse", "reverse_charge")]
)
def test_exempt_customers_pay_no_tax_and_are_told_why(books: Books, exempt: str, reason: str):
    customer = books.customer(tax_exempt=exempt, address={"country": "DE"})
    for fields in (
        {"automatic_tax": {"enabled": True}},
        {"default_tax_rates": _rates(books, "e5")},
    ):
        draft = books.draft(customer, 1000, **fields)
        invoice = books.client.v1.invoices.retrieve(draft)
        assert invoice.total == 1000
        assert invoice.total_taxes[0].taxability_reason == reason
