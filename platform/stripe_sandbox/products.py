"""Products: what prices are of. No deletion: a product is archived with `active=false`."""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    Flag,
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

_EDITABLE: Mapping[str, Parameter] = {
    "active": Flag(),
    "description": Text(),
    "images": Rows(Text(max_chars=2_048, keeps=True), max_rows=8),
    "marketing_features": Rows(
        Shape({"name": Text(max_chars=80, keeps=True)}, required=("name",)), max_rows=15
    ),
    "metadata": Metadata(),
    "name": Text(keeps=True),
    "statement_descriptor": Text(max_chars=22),
    "tax_code": Text(max_chars=20),
    "unit_label": Text(max_chars=12),
    "url": Text(),
}
CREATE = Takes({**_EDITABLE, "id": Reference()}, required=("name",))
UPDATE = Takes({**_EDITABLE, "default_price": Reference()})
RETRIEVE = Takes()
LIST = Takes(
    {
        **PAGE,
        "active": Flag(),
        "created": Span(),
        "ids": Rows(Reference(), max_rows=100),
        "url": Text(),
    }
)


def create(call: Call) -> Document:
    product = make(call, call.params)
    return public(call, product)


def make(call: Call, fields: Mapping[str, Any]) -> Document:
    """A stored product of the given fields; also behind prices that bring their own."""
    product: Document = {
        "id": fields.get("id") or ids.new("prod", 14),
        "object": "product",
        "active": True,
        "created": call.now,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": "",
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": call.now,
        "url": None,
    }
    if call.store.find("product", product["id"], deleted=True) is not None:
        raise refused(
            f"Product already exists: {product['id']}", code="resource_already_exists", param="id"
        )
    _apply(product, fields)
    call.store.insert(product, created=call.now)
    emit(call, "product.created", public(call, product))
    return product


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("product"))


def update(call: Call) -> Document:
    product = call.in_path("product")
    before = public(call, product)
    price = call.named("price", "default_price")
    if price is not None and price["product"] != product["id"]:
        raise no_such("price", price["id"], "default_price", in_path=False)
    _apply(product, call.params)
    if price is not None:
        product["default_price"] = price["id"]
    product["updated"] = call.now
    call.store.put(product)
    emit_change(call, "product.updated", before, public(call, product))
    return public(call, product)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    if "active" in call.params:
        where.append(("json_extract(body, '$.active') = ?", call.params["active"]))
    if "url" in call.params:
        where.append(("json_extract(body, '$.url') = ?", call.params["url"]))
    if call.params.get("ids"):
        joined = ",".join(call.params["ids"])
        where.append(("instr(',' || ? || ',', ',' || id || ',') > 0", joined))
    found = page(call, "product", "/v1/products", where)
    found["data"] = [public(call, product) for product in found["data"]]
    return found


def _apply(product: Document, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in ("expand", "id", "default_price"):
            continue
        product[name] = merged_metadata(product["metadata"], value) if name == "metadata" else value
