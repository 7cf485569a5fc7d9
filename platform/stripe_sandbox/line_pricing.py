"""How a line says what it costs: an amount, or a whole price times a whole quantity.

A price with a fraction of a minor unit is refused on lines, and so are decimal quantities:
Stripe's rounding of that product is not documented, so simulating it would teach a false figure.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import automatic_tax, ids, prices, taxes
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.invoice_totals import MAX_RATES, rates_named
from stripe_sandbox.params import (
    INSTANT,
    MAX_AMOUNT_MINOR,
    Choice,
    Currency,
    DecimalText,
    Flag,
    Integer,
    Metadata,
    Parameter,
    Reference,
    Rows,
    Shape,
    Text,
)
from stripe_sandbox.store import Document
from stripe_sandbox.tax_rates import PERCENTAGE_PLACES

MAX_DESCRIPTION_CHARS = 500

PERIOD = Shape({"start": INSTANT, "end": INSTANT}, required=("start", "end"))
TAX_RATES = Rows(Reference(), max_rows=MAX_RATES)
_PRODUCT_DATA = Shape(
    {
        "description": Text(),
        "metadata": Metadata(),
        "name": Text(keeps=True),
        "tax_code": Text(max_chars=20),
    },
    required=("name",),
)


def price_data(*, may_bring_product: bool) -> Shape:
    """The declaration of a price made on the spot."""
    fields: dict[str, Parameter] = {
        "currency": Currency(),
        "product": Reference(),
        "tax_behavior": prices.TAX_BEHAVIOR,
        "unit_amount": Integer(0, MAX_AMOUNT_MINOR),
        "unit_amount_decimal": DecimalText(places=12),
    }
    if may_bring_product:
        fields["product_data"] = _PRODUCT_DATA
        return Shape(fields, required=("currency",))
    return Shape(fields, required=("currency", "product"))


_TAX_AMOUNT = Shape(
    {
        "amount": Integer(),
        "tax_rate_data": Shape(
            {
                "country": Text(max_chars=2),
                "description": Text(),
                "display_name": Text(max_chars=50, keeps=True),
                "inclusive": Flag(),
                "jurisdiction": Text(max_chars=50),
                "percentage": DecimalText(places=PERCENTAGE_PLACES, high=100),
                "state": Text(max_chars=5),
                "tax_type": Choice(("gst", "hst", "jct", "pst", "qst", "sales_tax", "vat")),
            },
            required=("display_name", "inclusive", "percentage"),
        ),
        "taxability_reason": Choice(
            ("customer_exempt", "not_collecting", "reverse_charge", "standard_rated", "zero_rated")
        ),
        "taxable_amount": Integer(),
    },
    required=("amount", "tax_rate_data", "taxable_amount"),
)

COMMON: Mapping[str, Parameter] = {
    "amount": Integer(),
    "description": Text(max_chars=MAX_DESCRIPTION_CHARS),
    "discountable": Flag(),
    "metadata": Metadata(),
    "period": PERIOD,
    "pricing": Shape({"price": Reference()}),
    "quantity": Integer(0, MAX_AMOUNT_MINOR),
    "tax_rates": TAX_RATES,
}
ITEM: Mapping[str, Parameter] = {**COMMON, "price_data": price_data(may_bring_product=False)}
LINE: Mapping[str, Parameter] = {
    **COMMON,
    "price_data": price_data(may_bring_product=True),
    "tax_amounts": Rows(_TAX_AMOUNT, max_rows=MAX_RATES),
}
PRICED_BY = ("amount", "pricing", "price_data", "price")


def priced(call: Call, fields: Mapping[str, Any], currency: str, name: str) -> Document:
    """`amount`, `pricing` and `quantity` of a line."""
    given = [each for each in PRICED_BY if each in fields]
    inner = f"{name}[{given[-1] if given else 'amount'}]" if name else "amount"
    if not given:
        raise missing_parameter(inner)
    if len(given) > 1:
        raise refused(f"You may only specify one of these parameters: {', '.join(given)}.",
                      param=inner)  # fmt: skip
    if given == ["amount"]:
        if "quantity" in fields:
            raise refused(
                "A `quantity` goes with a price; an `amount` stands for itself.",
                param=f"{name}[quantity]" if name else "quantity",
            )
        return _bare(fields["amount"])
    price = _price(call, fields, inner)
    if price["currency"] != currency:
        raise refused(
            f"The price's currency ({price['currency']}) must match the invoice's ({currency}).",
            param=inner,
        )
    if price["unit_amount"] is None or price["recurring"] is not None:
        raise refused(
            "The sandbox takes one-time prices of whole minor units on lines only: how Stripe "
            "rounds fractions is not documented.",
            param=inner,
        )
    quantity = fields.get("quantity", 1)
    return {
        "amount": price["unit_amount"] * quantity,
        "pricing": _pricing(price["id"], price["product"], price["unit_amount"]),
        "quantity": quantity,
        "quantity_decimal": str(quantity),
    }


def _price(call: Call, fields: Mapping[str, Any], name: str) -> Document:
    if "price_data" in fields:
        return prices.of_data(call, fields["price_data"], name)
    price_id = fields.get("price") or (fields.get("pricing") or {}).get("price")
    if price_id is None:
        raise missing_parameter(name)
    price = call.store.find("price", price_id)
    if price is None:
        raise no_such("price", price_id, name, in_path=False)
    return price


def _bare(amount: int) -> Document:
    # Stripe makes an inline price for a bare amount; here it exists as its id only.
    return {
        "amount": amount,
        "pricing": _pricing(ids.new("price"), ids.new("prod", 14), amount),
        "quantity": 1,
        "quantity_decimal": "1",
    }


def _pricing(price_id: str, product_id: str, unit_amount: int) -> Document:
    return {
        "price_details": {"price": price_id, "product": product_id},
        "type": "price_details",
        "unit_amount_decimal": str(unit_amount),
    }


def taxed(call: Call, fields: Mapping[str, Any], name: str) -> Document:
    """What a line says of its own taxes: rates, or amounts already computed."""
    said: Document = {}
    if "tax_rates" in fields:
        place = f"{name}[tax_rates]" if name else "tax_rates"
        said["_tax_rates"] = rates_named(call, fields["tax_rates"], place)
    if "tax_amounts" in fields:
        if fields.get("tax_rates"):
            raise refused("Pass only one of `tax_rates` and `tax_amounts`.",
                          param=f"{name}[tax_amounts]")  # fmt: skip
        said["_tax_amounts"] = [_given(call, each) for each in fields["tax_amounts"]] or None
    return said


def _given(call: Call, given: Mapping[str, Any]) -> Document:
    rate = automatic_tax.found_or_made(call, {"active": False, **given["tax_rate_data"]})
    reason = given.get("taxability_reason", "not_available")
    return taxes.entry(given["amount"], given["taxable_amount"], rate, reason)
