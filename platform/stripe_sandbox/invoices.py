"""Invoices as documents: create a draft, read, edit, delete, list.

Moves between states are `invoice_states`, money is `payments`, lines are `invoice_lines`. What
a draft comes to is `invoice_totals`, and `amount_due` previews it.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.collection import schedule_collection
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.invoice_moves import not_editable, require
from stripe_sandbox.invoice_totals import MAX_RATES, rates_named, retotal
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    INSTANT,
    Choice,
    Currency,
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

AUTO_FINALIZE_AFTER_S = 3600  # Stripe waits about an hour before it finalizes by itself
MAX_DAYS_UNTIL_DUE = 3650
_DAY_S = 86_400

STATUSES = ("draft", "open", "paid", "uncollectible", "void")
AUTOMATIC_TAX = Shape({"enabled": Flag()}, required=("enabled",))
_COLLECTION = Choice(("charge_automatically", "send_invoice"))

_EDITABLE: Mapping[str, Parameter] = {
    "auto_advance": Flag(),
    "automatic_tax": AUTOMATIC_TAX,
    "collection_method": _COLLECTION,
    "custom_fields": Rows(
        Shape(
            {"name": Text(max_chars=40, keeps=True), "value": Text(max_chars=140, keeps=True)},
            required=("name", "value"),
        ),
        max_rows=4,
    ),
    "days_until_due": Integer(0, MAX_DAYS_UNTIL_DUE),
    "default_payment_method": Reference(unsets=True),
    "default_tax_rates": Rows(Reference(), max_rows=MAX_RATES),
    "description": Text(max_chars=1_500),
    "due_date": INSTANT,
    "footer": Text(),
    "metadata": Metadata(),
    "number": Text(max_chars=26),
    "statement_descriptor": Text(max_chars=22),
}
_EDITABLE_AFTER_DRAFT = frozenset({"auto_advance", "default_payment_method", "metadata", "expand"})

CREATE = Takes(
    {
        **_EDITABLE,
        "currency": Currency(),
        "customer": Reference(),
        # Nothing can be pending here: items are always attached to an invoice.
        "pending_invoice_items_behavior": Choice(("exclude", "include")),
    },
    required=("customer",),
)
UPDATE = Takes(_EDITABLE)
RETRIEVE = Takes()
DELETE = Takes()
LIST = Takes(
    {
        **PAGE,
        "collection_method": _COLLECTION,
        "created": Span(),
        "customer": Reference(),
        "status": Choice(STATUSES),
    }
)


_NOTHING_YET = (
    *("account_tax_ids", "application", "automatically_finalizes_at", "custom_fields"),
    *("customer_account", "default_payment_method", "default_source", "description", "due_date"),
    *("effective_at", "ending_balance", "footer", "from_invoice", "hosted_invoice_url"),
    *("invoice_pdf", "last_finalization_error", "latest_revision", "next_payment_attempt"),
    *("number", "on_behalf_of", "parent", "receipt_number", "rendering", "shipping_cost"),
    *("shipping_details", "statement_descriptor", "status_details"),
    *("_page_token", "_intent"),
)
_ZERO = (
    *("amount_due", "amount_overpaid", "amount_paid", "amount_paid_off_stripe"),
    *("amount_remaining", "amount_shipping", "attempt_count", "post_payment_credit_notes_amount"),
    *("pre_payment_credit_notes_amount", "subtotal", "subtotal_excluding_tax", "total"),
    "total_excluding_tax",
)
_EMPTY = (
    *("customer_tax_ids", "default_tax_rates", "discounts", "total_discount_amounts"),
    *("total_pretax_credit_amounts", "total_taxes"),
)
_TAX_OFF = dict.fromkeys(("disabled_reason", "liability", "provider", "status"))
_SETTINGS = dict.fromkeys(("default_mandate", "payment_method_options", "payment_method_types"))
_MOVES = dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at"))


def blank(call: Call, customer: Document, currency: str) -> Document:
    """A draft without lines; the names it bears follow the customer until finalization."""
    return {
        "id": ids.new("in"),
        "object": "invoice",
        **dict.fromkeys(_NOTHING_YET),
        **dict.fromkeys(_ZERO, 0),
        **{name: [] for name in _EMPTY},
        "account_country": "US",
        "account_name": "Stripe sandbox",
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {"enabled": False, **_TAX_OFF},
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "created": call.now,
        "currency": currency,
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
        "issuer": {"type": "self"},
        "livemode": False,
        "metadata": {},
        "payment_settings": dict(_SETTINGS),
        "period_end": call.now,
        "period_start": call.now,
        "starting_balance": customer["balance"],
        "status": "draft",
        "status_transitions": dict(_MOVES),
        "test_clock": customer["test_clock"],
        "webhooks_delivered_at": call.now,
    }


def create(call: Call) -> Document:
    customer = call.named("customer", "customer")
    if customer is None:
        raise missing_parameter("customer")
    currency = call.params.get("currency") or customer["currency"] or "usd"
    invoice = blank(call, customer, currency)
    call.store.insert(invoice, created=call.now)
    _apply(call, invoice, call.params)
    call.store.put(invoice)
    if customer["currency"] is None:
        customer["currency"] = currency
        call.store.put(customer)
    shown = public(call, invoice)
    emit(call, "invoice.created", shown)
    return shown


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("invoice"))


def update(call: Call) -> Document:
    invoice = call.in_path("invoice")
    if invoice["status"] != "draft" and not set(call.params) <= _EDITABLE_AFTER_DRAFT:
        require(invoice, "edit")
    before = public(call, invoice)
    _apply(call, invoice, call.params)
    return save(call, invoice, before)


def delete(call: Call) -> Document:
    invoice = call.in_path("invoice")
    require(invoice, "delete")
    shown = public(call, invoice)
    for kind in ("line_item", "invoiceitem"):
        rows = call.store.select(kind, [("invoice = ?", invoice["id"])], limit=1_000)
        for row in rows:
            call.store.remove(row["id"])
    call.store.remove(invoice["id"])
    emit(call, "invoice.deleted", shown)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def list_all(call: Call) -> Document:
    where = created_in(call.params.get("created"))
    for param, column in (("customer", "customer"), ("status", "label")):
        if param in call.params:
            where.append((f"{column} = ?", call.params[param]))
    if "collection_method" in call.params:
        where.append(
            ("json_extract(body, '$.collection_method') = ?", call.params["collection_method"])
        )
    found = page(call, "invoice", "/v1/invoices", where)
    found["data"] = [public(call, invoice) for invoice in found["data"]]
    return found


def save(call: Call, invoice: Document, before: Document, *event_types: str) -> Document:
    """Write an invoice, tell of the named events and of what changed; returns its outer form."""
    call.store.put(invoice)
    shown = public(call, invoice)
    for event_type in event_types:
        emit(call, event_type, shown)
    emit_change(call, "invoice.updated", before, shown)
    return shown


def _apply(call: Call, invoice: Document, params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        if name in ("expand", "customer", "currency", "pending_invoice_items_behavior"):
            continue
        if name == "days_until_due":
            continue
        if name == "metadata":
            invoice["metadata"] = merged_metadata(invoice["metadata"], value)
        elif name == "default_payment_method":
            invoice[name] = _own_method(call, invoice, value)
        elif name == "automatic_tax":
            invoice["automatic_tax"]["enabled"] = value["enabled"]
        elif name == "default_tax_rates":
            invoice[name] = rates_named(call, value, name)
        elif name == "custom_fields":
            invoice[name] = value or None
        else:
            invoice[name] = value
    if invoice["status"] == "draft":
        retotal(call, invoice)
        _set_due_date(call, invoice, params)
        _set_auto_finalization(call, invoice)
    elif "auto_advance" in params:
        if invoice["status"] != "open":
            raise not_editable("auto_advance can be changed on draft and open invoices only.")
        schedule_collection(call, invoice)


def _own_method(call: Call, invoice: Document, method_id: str | None) -> str | None:
    if method_id is None:
        return None
    method = call.store.find("payment_method", method_id)
    if method is None or method["customer"] != invoice["customer"]:
        raise no_such("payment_method", method_id, "default_payment_method", in_path=False)
    return method_id


def _set_due_date(call: Call, invoice: Document, params: Mapping[str, Any]) -> None:
    if invoice["collection_method"] == "charge_automatically":
        if "due_date" in params or "days_until_due" in params:
            raise refused(
                "`due_date` and `days_until_due` are for invoices with "
                "`collection_method=send_invoice` only.",
                param="due_date" if "due_date" in params else "days_until_due",
            )
        invoice["due_date"] = None
        return
    if "due_date" in params and "days_until_due" in params:
        raise refused("You may only specify one of these parameters: due_date, days_until_due.")
    if "days_until_due" in params:
        invoice["due_date"] = invoice["created"] + params["days_until_due"] * _DAY_S
    if invoice["due_date"] is None:
        raise refused(
            "If invoice `collection_method`=`send_invoice`, you must specify one of `due_date` or "
            "`days_until_due`."
        )


def _set_auto_finalization(call: Call, invoice: Document) -> None:
    if not invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = None
    elif invoice["automatically_finalizes_at"] is None:
        invoice["automatically_finalizes_at"] = call.now + AUTO_FINALIZE_AFTER_S
    call.store.set_timer(invoice["id"], invoice["automatically_finalizes_at"])
