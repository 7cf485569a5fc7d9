"""Prices: an amount per unit of a product, in whole minor units or with up to twelve decimals.

Only per-unit prices are simulated; tiers and other currencies are refused aloud. An invoice line
takes a price whose amount is whole: how Stripe rounds a fraction times a quantity is not
documented.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from stripe_sandbox import ids, products
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
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
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

TAX_BEHAVIOR = Choice(("exclusive", "inclusive", "unspecified"))

_PRODUCT_DATA: Mapping[str, Parameter] = {
    "active": Flag(),
    "id": Reference(),
    "metadata": Metadata(),
    "name": Text(keeps=True),
    "statement_descriptor": Text(max_chars=22),
    "tax_code": Text(max_chars=20),
    "unit_label": Text(max_chars=12),
}
_INTERVAL = Choice(("day", "week", "month", "year"))
_USAGE = Choice(("licensed", "metered"))
_EDITABLE: Mapping[str, Parameter] = {
    "active": Flag(),
    "lookup_key": Text(max_chars=200),
    "metadata": Metadata(),
    "nickname": Text(),
    "tax_behavior": TAX_BEHAVIOR,
    "transfer_lookup_key": Flag(),
}

CREATE = Takes(
    {
        **_EDITABLE,
        "billing_scheme": Choice(("per_unit",)),
        "currency": Currency(),
        "product": Reference(),
        "product_data": Shape(_PRODUCT_DATA, required=("name",)),
        "recurring": Shape(
            {"interval": _INTERVAL, "interval_count": Integer(1, 1_000), "usage_type": _USAGE},
            required=("interval",),
        ),
        "unit_amount": Integer(0, MAX_AMOUNT_MINOR),
        "unit_amount_decimal": DecimalText(places=12),
    },
    required=("currency",),
)
UPDATE = Takes(_EDITABLE)
RETRIEVE = Takes()
LIST = Takes(
    {
        **PAGE,
        "active": Flag(),
        "created": Span(),
        "currency": Currency(),
        "lookup_keys": Rows(Text(max_chars=200, keeps=True), max_rows=10),
        "product": Reference(),
        "type": Choice(("one_time", "recurring")),
    }
)


def create(call: Call) -> Document:
    product = call.named("product", "product")
    if (product is None) == ("product_data" not in call.params):
        raise refused("You must pass exactly one of `product` and `product_data`.", param="product")
    if product is None:
        product = products.make(call, call.params["product_data"])
    price = make(call, product, call.params)
    return public(call, price)


def make(
    call: Call, product: Document, fields: Mapping[str, Any], *, active: bool = True
) -> Document:
    """A stored price of the given fields; also behind lines that bring their own price."""
    if ("unit_amount" in fields) == ("unit_amount_decimal" in fields):
        raise refused(
            "You must pass exactly one of `unit_amount` and `unit_amount_decimal`.",
            code="parameter_missing" if "unit_amount" not in fields else None,
            param="unit_amount",
        )
    exact = Decimal(fields.get("unit_amount_decimal") or fields.get("unit_amount") or 0)
    recurring = fields.get("recurring")
    price: Document = {
        "id": ids.new("price"),
        "object": "price",
        "active": active,
        "billing_scheme": "per_unit",
        "created": call.now,
        "currency": fields["currency"],
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": product["id"],
        "recurring": None
        if recurring is None
        else {
            "interval": recurring["interval"],
            "interval_count": recurring.get("interval_count", 1),
            "meter": None,
            "trial_period_days": None,
            "usage_type": recurring.get("usage_type", "licensed"),
        },
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time" if recurring is None else "recurring",
        "unit_amount": int(exact) if exact == int(exact) else None,
        "unit_amount_decimal": format(exact.normalize(), "f"),
    }
    call.store.insert(price, created=call.now)
    _apply(call, price, fields)
    call.store.put(price)
    emit(call, "price.created", public(call, price))
    return price


def of_data(call: Call, data: Mapping[str, Any], name: str) -> Document:
    """The price a `price_data` describes, archived at once as Stripe's inline prices are."""
    if ("product" in data) == ("product_data" in data):
        raise missing_parameter(f"{name}[product]")
    if "product" in data:
        product = call.store.find("product", data["product"])
        if product is None:
            raise no_such("product", data["product"], f"{name}[product]", in_path=False)
    else:
        product = products.make(call, {**data["product_data"], "active": False})
    fields = {key: value for key, value in data.items() if not key.startswith("product")}
    return make(call, product, fields, active=False)


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("price"))


def update(call: Call) -> Document:
    price = call.in_path("price")
    before = public(call, price)
    chosen = call.params.get("tax_behavior", price["tax_behavior"])
    if price["tax_behavior"] not in ("unspecified", chosen):
        raise refused(
            "You cannot change `tax_behavior` once it is set to exclusive or inclusive.",
            param="tax_behavior",
        )
    _apply(call, price, call.params)
    call.store.put(price)
    emit_change(call, "price.updated", before, public(call, price))
    return public(call, price)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("active", "currency", "product", "type"):
        if name in call.params:
            # The name is one of the literals above; the value is bound.
            where.append((f"json_extract(body, '$.{name}') = ?", call.params[name]))
    if call.params.get("lookup_keys"):
        joined = ",".join(call.params["lookup_keys"])
        key = "json_extract(body, '$.lookup_key')"
        where.append((f"instr(',' || ? || ',', ',' || {key} || ',') > 0", joined))
    found = page(call, "price", "/v1/prices", where)
    found["data"] = [public(call, price) for price in found["data"]]
    return found


def _apply(call: Call, price: Document, fields: Mapping[str, Any]) -> None:
    for name in ("active", "nickname", "tax_behavior"):
        if name in fields:
            price[name] = fields[name]
    if "metadata" in fields:
        price["metadata"] = merged_metadata(price["metadata"], fields["metadata"])
    if "lookup_key" in fields:
        _take_key(call, price, fields["lookup_key"], transfer=fields.get("transfer_lookup_key"))


def _take_key(call: Call, price: Document, key: str | None, *, transfer: bool | None) -> None:
    """A lookup key names one active price; taking another's must be said."""
    where = [("json_extract(body, '$.lookup_key') = ?", key), ("id <> ?", price["id"])]
    for holder in call.store.select("price", where, limit=1):
        if not transfer:
            raise refused(
                f"A price ({holder['id']}) already uses that lookup key. Use "
                "`transfer_lookup_key=true` to move it.",
                param="lookup_key",
            )
        holder["lookup_key"] = None
        call.store.put(holder)
    price["lookup_key"] = key
