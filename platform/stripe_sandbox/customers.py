"""Customers: who is billed, with a prefix for invoice numbers and a default payment method."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stripe_sandbox import balance_transactions, ids, test_clocks
from stripe_sandbox.call import Call
from stripe_sandbox.cards import BY_MAGIC_ID
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    ADDRESS,
    Choice,
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
from stripe_sandbox.payment_methods import attach_to, detach_from, resolve
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

_EDITABLE: Mapping[str, Parameter] = {
    "address": ADDRESS,
    "balance": Integer(),
    "business_name": Text(max_chars=150),
    "description": Text(),
    "email": Text(max_chars=512),
    "individual_name": Text(max_chars=150),
    "invoice_prefix": Text(max_chars=12, keeps=True),
    "invoice_settings": Shape({"default_payment_method": Reference(unsets=True), "footer": Text()}),
    "metadata": Metadata(),
    "name": Text(max_chars=256),
    "next_invoice_sequence": Integer(1, 999_999_999),
    "phone": Text(max_chars=20),
    "preferred_locales": Rows(Text(max_chars=35, keeps=True), max_rows=20),
    "shipping": Shape(
        {"address": replace(ADDRESS, unsets=False), "name": Text(), "phone": Text()},
        required=("address", "name"),
        unsets=True,
    ),
    "tax_exempt": Choice(("none", "exempt", "reverse")),
}

_PREFIX = re.compile(r"^[A-Z0-9]{3,12}$")

CREATE = Takes({**_EDITABLE, "payment_method": Reference(), "test_clock": Reference()})
UPDATE = Takes(_EDITABLE)
RETRIEVE = Takes()
DELETE = Takes()
LIST = Takes({**PAGE, "created": Span(), "email": Text(max_chars=512)})


def create(call: Call) -> Document:
    return public(call, make(call, call.params))


def make(call: Call, fields: Mapping[str, Any]) -> Document:
    """A stored customer of the given fields; also behind a Checkout that makes one."""
    customer: Document = {
        "id": ids.new("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": call.now,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": ids.invoice_prefix(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    params = dict(fields)
    method_id = params.pop("payment_method", None)
    call.store.insert(customer, created=call.now)
    if method_id is not None:
        method = attach_to(call, resolve(call, method_id), customer)
        settings = params.get("invoice_settings") or {}
        if settings.get("default_payment_method") == method_id and method_id in BY_MAGIC_ID:
            # Both places name the same magic id and mean the same fresh card.
            params["invoice_settings"] = {**settings, "default_payment_method": method["id"]}
    _apply(call, customer, params)
    call.store.put(customer)
    test_clocks.take_in(call, customer)
    if customer["balance"]:
        balance_transactions.record(call, customer, customer["balance"], "initial")
    emit(call, "customer.created", public(call, customer))
    return customer


def retrieve(call: Call) -> Document:
    """A deleted customer still answers, as `{id, object, deleted}`."""
    found = call.store.find("customer", call.path["id"], deleted=True)
    if found is not None and found.get("deleted"):
        return found
    return public(call, call.in_path("customer"))


def update(call: Call) -> Document:
    customer = call.in_path("customer")
    before = public(call, customer)
    _apply(call, customer, call.params)
    call.store.put(customer)
    after = public(call, customer)
    moved = after["balance"] - before["balance"]
    if moved:
        balance_transactions.record(call, customer, moved, "adjustment")
    emit_change(call, "customer.updated", before, after)
    return after


def delete(call: Call) -> Document:
    """Detaches payment methods; invoices stay as evidence."""
    customer = call.in_path("customer")
    where = [("customer = ?", customer["id"])]
    for method in call.store.select("payment_method", where, limit=1_000):
        detach_from(call, method)
    emit(call, "customer.deleted", public(call, customer))
    gone = {"id": customer["id"], "object": "customer", "deleted": True}
    call.store.put(gone)
    call.store.remove(customer["id"])
    return gone


def list_all(call: Call) -> Document:
    where = created_in(call.params.get("created"))
    if call.params.get("email"):
        where.append(("json_extract(body, '$.email') = ?", call.params["email"]))
    found = page(call, "customer", "/v1/customers", where)
    found["data"] = [public(call, customer) for customer in found["data"]]
    return found


def _apply(call: Call, customer: Document, params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        if name == "expand":
            continue
        if name == "metadata":
            customer["metadata"] = merged_metadata(customer["metadata"], value)
        elif name == "invoice_settings":
            _apply_settings(call, customer, value)
        elif name == "invoice_prefix":
            _take_prefix(call, customer, value)
        elif name in ("address", "shipping") and value is not None:
            customer[name] = _whole(value)
        else:
            customer[name] = value


def _apply_settings(call: Call, customer: Document, settings: Mapping[str, Any]) -> None:
    if "footer" in settings:
        customer["invoice_settings"]["footer"] = settings["footer"]
    if "default_payment_method" not in settings:
        return
    method_id = settings["default_payment_method"]
    if method_id is not None:
        method = call.store.find("payment_method", method_id)
        if method is None or method["customer"] != customer["id"]:
            raise no_such(
                "payment_method",
                method_id,
                "invoice_settings[default_payment_method]",
                in_path=False,
            )
    customer["invoice_settings"]["default_payment_method"] = method_id


def set_default_card(call: Call, customer: Document, method_id: str) -> None:
    """Charge this saved card from now on."""
    before = public(call, customer)
    customer["invoice_settings"]["default_payment_method"] = method_id
    call.store.put(customer)
    emit_change(call, "customer.updated", before, public(call, customer))


def _take_prefix(call: Call, customer: Document, prefix: str) -> None:
    if not _PREFIX.match(prefix):
        raise refused(
            "Invoice prefixes have 3 to 12 upper-case letters and numbers.", param="invoice_prefix"
        )
    taken = call.store.select(
        "customer",
        [("json_extract(body, '$.invoice_prefix') = ?", prefix), ("id <> ?", customer["id"])],
        limit=1,
    )
    if taken:
        raise refused(f"The invoice prefix {prefix} is already in use.", param="invoice_prefix")
    customer["invoice_prefix"] = prefix


def _whole(value: Document) -> Document:
    """Addresses answer with all their members, absent ones as null."""
    if "address" in value:
        return {
            "address": _whole(value["address"] or {}),
            "name": value["name"],
            "phone": value.get("phone"),
        }
    return {name: value.get(name) for name in ADDRESS.fields}
