"""Products, prices and tax rates: made, changed where Stripe lets them change, listed."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books


def test_a_product_and_its_prices(books: Books):
    client = books.client.v1
    product = client.products.create({"name": "Tokens", "metadata": {"model": "m1"}})
    whole = client.prices.create({"currency": "usd", "product": product.id, "unit_amount": 250})
    assert (whole.unit_amount, whole.unit_amount_decimal) == (250, Decimal(250))
    fine: Any = {"currency": "usd", "product": product.id, "unit_amount_decimal": "0.000015"}
    exact = client.prices.create(fine)
    assert (exact.unit_amount, exact.unit_amount_decimal) == (None, Decimal("0.000015"))
    updated = client.products.update(product.id, {"default_price": whole.id, "active": False})
    assert (updated.default_price, updated.active) == (whole.id, False)
    listed = client.prices.list({"product": product.id, "active": True}).data
    assert [price.id for price in listed] == [exact.id, whole.id]
    assert product.id not in [p.id for p in client.products.list({"active": True}).data]
    assert books.events_about(product.id) == ["product.created", "product.updated"]


@pytest.mark.parametrize("amount", ["1E-7", "0.0000000000001", "x", "-1"])
def test_a_price_has_plain_decimals_of_twelve_places(books: Books, amount: str):
    params: Any = {
        "currency": "usd", "unit_amount_decimal": amount, "product_data": {"name": "Tokens"},
    }  # fmt: skip
    with pytest.raises(stripe.InvalidRequestError) as refused:
        books.client.v1.prices.create(params)
    assert refused.value.param == "unit_amount_decimal"


def test_a_lookup_key_moves_only_when_asked(books: Books):
    prices = books.client.v1.prices
    key = f"key-{books.customer()}"
    params: Any = {
        "currency": "usd", "unit_amount": 5, "product_data": {"name": "x"}, "lookup_key": key,
    }  # fmt: skip
    prices.create(params)
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        prices.create(params)
    second = prices.create({**params, "transfer_lookup_key": True})
    assert [price.id for price in prices.list({"lookup_keys": [key]}).data] == [second.id]


def test_a_tax_rate_keeps_its_percentage_for_ever(books: Books):
    rates = books.client.v1.tax_rates
    made = rates.create({"display_name": "VAT", "inclusive": True, "percentage": 8.875})
    assert (made.percentage, made.inclusive) == (8.875, True)
    rates.update(made.id, {"active": False})
    assert made.id in [rate.id for rate in rates.list({"active": False}).data]
    unknown: Any = {"percentage": 9}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        rates.update(made.id, unknown)
    assert refused.value.code == "parameter_unknown"
    too_high: Any = {"display_name": "x", "inclusive": False, "percentage": "100.0001"}
    with pytest.raises(stripe.InvalidRequestError):
        rates.create(too_high)
