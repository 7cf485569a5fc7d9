"""What is billed: lines of a draft, and the invoice items behind them.

Amounts are integers in minor units and may be negative; how a line says them is `line_pricing`.
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
from stripe_sandbox.invoice_totals import MAX_LINES, retotal
from stripe_sandbox.invoices import save
from stripe_sandbox.line_pricing import ITEM, LINE, priced, taxed
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    Currency,
    Flag,
    Metadata,
    Reference,
    Rows,
    Shape,
    Span,
    Takes,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

ADD_LINES = Takes(
    {
        "invoice_metadata": Metadata(),
        "lines": Rows(Shape(LINE), max_rows=MAX_LINES),
    },
    required=("lines",),
)
LIST_LINES = Takes(PAGE)
CREATE_ITEM = Takes(
    {**ITEM, "currency": Currency(), "customer": Reference(), "invoice": Reference()},
    # Items pending for a later invoice are not simulated: they would be swept into a wrong one.
    required=("customer", "invoice"),
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
        add(call, invoice, fields, f"lines[{place}]")
    if "invoice_metadata" in call.params:
        change = call.params["invoice_metadata"]
        invoice["metadata"] = merged_metadata(invoice["metadata"], change)
    retotal(call, invoice)
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
    item = add(call, invoice, call.params, "")
    retotal(call, invoice)
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


def add(call: Call, invoice: Document, fields: Any, name: str) -> Document:
    """One item and its line on the draft; returns the item."""
    shared = {
        "currency": invoice["currency"],
        "description": None,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": False,
        "metadata": {},
        "period": {"start": call.now, "end": call.now},
        **priced(call, fields, invoice["currency"], name),
    }
    shared["discountable"] = shared["amount"] >= 0
    describe(shared, fields, name)
    said = taxed(call, fields, name)
    item: Document = {
        "id": ids.new("ii"),
        "object": "invoiceitem",
        **shared,
        **dict.fromkeys(("customer_account", "frozen_fields", "invoicing_rules", "parent")),
        "customer": invoice["customer"],
        "date": call.now,
        "net_amount": shared["amount"],
        "proration": False,
        "proration_details": None,
        "tax_rates": said.get("_tax_rates", []),
        "test_clock": invoice["test_clock"],
    }
    call.store.insert(item, created=call.now)
    call.store.insert(_line(item["id"], shared, said), created=call.now)
    emit(call, "invoiceitem.created", public(call, item))
    return item


def describe(shared: Document, fields: Mapping[str, Any], name: str) -> None:
    """Apply what an item and its line have in common beside their price."""
    period = fields.get("period") or shared["period"]
    if period["end"] < period["start"]:
        param = f"{name}[period][end]" if name else "period[end]"
        raise refused("The period's end must not be before its start.", param=param)
    shared["period"] = period
    for key in ("description", "discountable"):
        if key in fields:
            shared[key] = fields[key]
    if "metadata" in fields:
        shared["metadata"] = merged_metadata(shared["metadata"], fields["metadata"])


def _line(item_id: str, shared: Document, said: Document) -> Document:
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
        "_tax_amounts": None,
        "_tax_rates": [],
        **said,
    }
