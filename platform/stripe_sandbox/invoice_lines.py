"""What is billed: lines of a draft, and the invoice items behind them.

Amounts are integers in minor units and may be negative. Prices times quantities are refused:
Stripe's rounding of that product is not documented, so simulating it would teach a false figure.
At most 250 items on an invoice; a bulk call is all or nothing here (what Stripe leaves behind
after a partial failure is not known to us).
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit
from stripe_sandbox.invoice_moves import require
from stripe_sandbox.invoices import save
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    INSTANT,
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

MAX_LINES = 250
MAX_DESCRIPTION_CHARS = 500

_PERIOD = Shape({"start": INSTANT, "end": INSTANT}, required=("start", "end"))
_LINE: Mapping[str, Parameter] = {
    "amount": Integer(),
    "description": Text(max_chars=MAX_DESCRIPTION_CHARS),
    "discountable": Flag(),
    "metadata": Metadata(),
    "period": _PERIOD,
}

ADD_LINES = Takes(
    {
        "invoice_metadata": Metadata(),
        "lines": Rows(Shape(_LINE, required=("amount",)), max_rows=MAX_LINES),
    },
    required=("lines",),
)
LIST_LINES = Takes(PAGE)
CREATE_ITEM = Takes(
    {**_LINE, "currency": Currency(), "customer": Reference(), "invoice": Reference()},
    # Items pending for a later invoice are not simulated: they would be swept into a wrong one.
    required=("customer", "invoice", "amount"),
)
RETRIEVE_ITEM = Takes()
LIST_ITEMS = Takes(
    {
        **PAGE,
        "created": Span(),
        "customer": Reference(),
        "invoice": Reference(),
        "pending": Flag(),
    }
)


def add_lines(call: Call) -> Document:
    invoice = call.in_path("invoice")
    require(invoice, "edit_lines")
    before = public(call, invoice)
    if not call.params["lines"]:
        raise missing_parameter("lines")
    for place, fields in enumerate(call.params["lines"]):
        _add(call, invoice, fields, f"lines[{place}]")
    if "invoice_metadata" in call.params:
        change = call.params["invoice_metadata"]
        invoice["metadata"] = merged_metadata(invoice["metadata"], change)
    _total(call, invoice)
    return save(call, invoice, before)


def list_lines(call: Call) -> Document:
    """In the order they were added."""
    invoice = call.in_path("invoice")
    url = f"/v1/invoices/{invoice['id']}/lines"
    found = page(call, "line_item", url, [("invoice = ?", invoice["id"])], ascending=True)
    found["data"] = [public(call, line) for line in found["data"]]
    return found


def create_item(call: Call) -> Document:
    invoice = call.named("invoice", "invoice")
    customer = call.named("customer", "customer")
    if invoice is None or customer is None:
        raise missing_parameter("invoice" if invoice is None else "customer")
    require(invoice, "edit_lines")
    if invoice["customer"] != customer["id"]:
        raise no_such("invoice", invoice["id"], "invoice", in_path=False)
    currency = call.params.get("currency", invoice["currency"])
    if currency != invoice["currency"]:
        raise refused(
            f"The currency of the invoice item ({currency}) must match the currency of the invoice "
            f"({invoice['currency']}).",
            param="currency",
        )
    before = public(call, invoice)
    item = _add(call, invoice, call.params, "")
    _total(call, invoice)
    save(call, invoice, before)
    return public(call, item)


def retrieve_item(call: Call) -> Document:
    return public(call, call.in_path("invoiceitem"))


def list_items(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("customer", "invoice"):
        if name in call.params:
            where.append((f"{name} = ?", call.params[name]))
    if "pending" in call.params:
        where.append(("(invoice IS NULL) = ?", call.params["pending"]))
    found = page(call, "invoiceitem", "/v1/invoiceitems", where)
    found["data"] = [public(call, item) for item in found["data"]]
    return found


def _add(call: Call, invoice: Document, fields: Any, name: str) -> Document:
    """One item and its line on the draft; returns the item."""
    shared = _shared(call, invoice, fields, name)
    item: Document = {
        "id": ids.new("ii"),
        "object": "invoiceitem",
        **shared,
        **dict.fromkeys(
            ("customer_account", "frozen_fields", "invoicing_rules", "parent"),
        ),
        "customer": invoice["customer"],
        "date": call.now,
        "net_amount": shared["amount"],
        "proration": False,
        "proration_details": None,
        "tax_rates": [],
        "test_clock": None,
    }
    call.store.insert(item, created=call.now)
    call.store.insert(_line(item["id"], shared), created=call.now)
    emit(call, "invoiceitem.created", public(call, item))
    return item


def _shared(call: Call, invoice: Document, fields: Any, name: str) -> Document:
    """What an item and its line have in common."""
    period = fields.get("period") or {"start": call.now, "end": call.now}
    if period["end"] < period["start"]:
        param = f"{name}[period][end]" if name else "period[end]"
        raise refused("The period's end must not be before its start.", param=param)
    amount = fields["amount"]
    return {
        "amount": amount,
        "currency": invoice["currency"],
        "description": fields.get("description"),
        "discountable": fields.get("discountable", amount >= 0),
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": False,
        "metadata": merged_metadata({}, fields.get("metadata", {})),
        "period": period,
        # Stripe makes an inline price for a bare amount; prices exist here as ids only.
        "pricing": {
            "price_details": {"price": ids.new("price"), "product": ids.new("prod", 14)},
            "type": "price_details",
            "unit_amount_decimal": str(amount),
        },
        "quantity": 1,
        "quantity_decimal": "1",
    }


def _line(item_id: str, shared: Document) -> Document:
    details = {"invoice_item": item_id, "proration": False, "subscription": None}
    return {
        "id": ids.new("il"),
        "object": "line_item",
        **shared,
        "discount_amounts": [],
        "parent": {
            "invoice_item_details": {**details, "proration_details": {"credited_items": None}},
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "pretax_credit_amounts": [],
        "subscription": None,
        "subtotal": shared["amount"],
        "taxes": [],
    }


def _total(call: Call, invoice: Document) -> None:
    where = [("invoice = ?", invoice["id"])]
    lines = call.store.select("line_item", where, limit=MAX_LINES + 1)
    if len(lines) > MAX_LINES:
        raise refused(f"An invoice can have up to {MAX_LINES} line items.", param="lines")
    total = sum(line["amount"] for line in lines)
    invoice.update(
        subtotal=total,
        subtotal_excluding_tax=total,
        total=total,
        total_excluding_tax=total,
        amount_due=max(total, 0),
        amount_remaining=max(total, 0),
    )
