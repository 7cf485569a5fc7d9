"""Changes to what stands on a draft: lines and the items behind them, which change together.

A line and its item are two views of one thing, so an edit of either writes both and the invoice's
totals. Bulk edits are all or nothing here.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit
from stripe_sandbox.invoice_lines import describe
from stripe_sandbox.invoice_moves import require
from stripe_sandbox.invoice_totals import MAX_LINES, retotal
from stripe_sandbox.invoices import save
from stripe_sandbox.line_pricing import ITEM, LINE, PRICED_BY, priced, taxed
from stripe_sandbox.params import (
    Choice,
    Metadata,
    Reference,
    Rows,
    Shape,
    Takes,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

UPDATE_LINES = Takes(
    {
        "invoice_metadata": Metadata(),
        "lines": Rows(Shape({**LINE, "id": Reference()}, required=("id",)), max_rows=MAX_LINES),
    },
    required=("lines",),
)
REMOVE_LINES = Takes(
    {
        "invoice_metadata": Metadata(),
        "lines": Rows(
            Shape(
                # Items left pending are not simulated: they would be swept into a wrong invoice.
                {"behavior": Choice(("delete",)), "id": Reference()},
                required=("behavior", "id"),
            ),
            max_rows=MAX_LINES,
        ),
    },
    required=("lines",),
)
UPDATE_LINE = Takes(LINE)
UPDATE_ITEM = Takes(ITEM)
DELETE_ITEM = Takes()


def update_lines(call: Call) -> Document:
    invoice = call.in_path("invoice")
    require(invoice, "edit_lines")
    before = public(call, invoice)
    for place, fields in enumerate(_some(call)):
        line = _line_of(call, invoice, fields["id"], f"lines[{place}][id]")
        _change(call, invoice, line, fields, f"lines[{place}]")
    return _save(call, invoice, before)


def remove_lines(call: Call) -> Document:
    invoice = call.in_path("invoice")
    require(invoice, "edit_lines")
    before = public(call, invoice)
    for place, fields in enumerate(_some(call)):
        line = _line_of(call, invoice, fields["id"], f"lines[{place}][id]")
        _remove(call, line, _item_of(call, line))
    return _save(call, invoice, before)


def update_line(call: Call) -> Document:
    invoice = call.in_path("invoice")
    line = call.store.find("line_item", call.path["line"])
    if line is None or line["invoice"] != invoice["id"]:
        raise no_such("line_item", call.path["line"], "line_item", in_path=True)
    if invoice["status"] != "draft" and set(call.params) <= {"metadata", "expand"}:
        describe(line, call.params, "")
        call.store.put(line)
        return public(call, line)
    require(invoice, "edit_lines")
    before = public(call, invoice)
    _change(call, invoice, line, call.params, "")
    _save(call, invoice, before)
    return public(call, call.store.find("line_item", line["id"]) or line)


def update_item(call: Call) -> Document:
    item, invoice, line = _of_item(call)
    before = public(call, invoice)
    _change(call, invoice, line, call.params, "")
    _save(call, invoice, before)
    return public(call, call.store.find("invoiceitem", item["id"]) or item)


def delete_item(call: Call) -> Document:
    item, invoice, line = _of_item(call)
    before = public(call, invoice)
    _remove(call, line, item)
    _save(call, invoice, before)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


def _some(call: Call) -> list[Mapping[str, Any]]:
    lines: list[Mapping[str, Any]] = call.params["lines"]
    if not lines:
        raise missing_parameter("lines")
    if len({fields["id"] for fields in lines}) < len(lines):
        raise refused("A line may be named only once.", param="lines")
    return lines


def _change(
    call: Call, invoice: Document, line: Document, fields: Mapping[str, Any], name: str
) -> None:
    item = _item_of(call, line)
    priced_anew: Document = {}
    if any(each in fields for each in PRICED_BY):
        priced_anew = priced(call, fields, invoice["currency"], name)
    elif "quantity" in fields:
        price = {"pricing": {"price": line["pricing"]["price_details"]["price"]}}
        priced_anew = priced(call, {**fields, **price}, invoice["currency"], name)
    for document in (line, item):
        document.update(priced_anew)
        describe(document, fields, name)
    line["subtotal"] = line["amount"]
    item["net_amount"] = item["amount"]
    said = taxed(call, fields, name)
    line.update(said)
    item["tax_rates"] = line["_tax_rates"]
    call.store.put(line)
    call.store.put(item)


def _remove(call: Call, line: Document, item: Document) -> None:
    call.store.remove(line["id"])
    call.store.remove(item["id"])
    emit(call, "invoiceitem.deleted", public(call, item))


def _save(call: Call, invoice: Document, before: Document) -> Document:
    if "invoice_metadata" in call.params:
        change = call.params["invoice_metadata"]
        invoice["metadata"] = merged_metadata(invoice["metadata"], change)
    retotal(call, invoice)
    return save(call, invoice, before)


def _line_of(call: Call, invoice: Document, line_id: str, param: str) -> Document:
    line = call.store.find("line_item", line_id)
    if line is None or line["invoice"] != invoice["id"]:
        raise no_such("line_item", line_id, param, in_path=False)
    return line


def _item_of(call: Call, line: Document) -> Document:
    item = call.store.find("invoiceitem", line["parent"]["invoice_item_details"]["invoice_item"])
    if item is None:
        raise RuntimeError(f"{line['id']} has lost its invoice item")
    return item


def _of_item(call: Call) -> tuple[Document, Document, Document]:
    item = call.in_path("invoiceitem")
    invoice = call.store.find("invoice", item["invoice"])
    if invoice is None:
        raise RuntimeError(f"{item['id']} has lost its invoice")
    require(invoice, "edit_lines")
    where = [
        ("invoice = ?", invoice["id"]),
        ("json_extract(body, '$.parent.invoice_item_details.invoice_item') = ?", item["id"]),
    ]
    [line] = call.store.select("line_item", where, limit=1)
    return item, invoice, line
