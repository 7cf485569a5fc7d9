"""An invoice as it would be: built like any draft, shown, and undone before anything is kept."""

from dataclasses import replace

from stripe_sandbox import customers, ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, refused
from stripe_sandbox.invoice_lines import add
from stripe_sandbox.invoice_totals import MAX_LINES, retotal
from stripe_sandbox.invoices import AUTOMATIC_TAX, blank
from stripe_sandbox.line_pricing import PERIOD, TAX_RATES, price_data
from stripe_sandbox.params import (
    ADDRESS,
    MAX_AMOUNT_MINOR,
    Choice,
    Currency,
    Flag,
    Integer,
    Metadata,
    Reference,
    Rows,
    Shape,
    Takes,
    Text,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

CREATE = Takes(
    {
        "automatic_tax": AUTOMATIC_TAX,
        "currency": Currency(),
        "customer": Reference(),
        "customer_details": Shape(
            {
                "address": ADDRESS,
                "shipping": Shape(
                    {"address": replace(ADDRESS, unsets=False), "name": Text()},
                    required=("address", "name"),
                    unsets=True,
                ),
                "tax_exempt": Choice(("exempt", "none", "reverse")),
            }
        ),
        "invoice_items": Rows(
            Shape(
                {
                    "amount": Integer(),
                    "currency": Currency(),
                    "description": Text(),
                    "discountable": Flag(),
                    "metadata": Metadata(),
                    "period": PERIOD,
                    "price": Reference(),
                    "price_data": price_data(may_bring_product=False),
                    "quantity": Integer(0, MAX_AMOUNT_MINOR),
                    "tax_rates": TAX_RATES,
                }
            ),
            max_rows=MAX_LINES,
        ),
    }
)


class _Undo(Exception):
    """Leaves the attempt with everything in it undone."""


def create(call: Call) -> Document:
    if not call.params.get("invoice_items"):
        raise missing_parameter("invoice_items")
    if "customer" not in call.params and "customer_details" not in call.params:
        raise missing_parameter("customer")
    shown: Document = {}
    try:
        with call.store.attempt():
            shown = _drawn(call)
            raise _Undo
    except _Undo:
        return shown


def _drawn(call: Call) -> Document:
    params = call.params
    customer = call.named("customer", "customer") or customers.make(call, {})
    customer.update(params.get("customer_details") or {})
    call.store.put(customer)
    currency = params.get("currency") or customer["currency"] or "usd"
    invoice = blank(call, customer, currency)
    invoice["id"] = ids.new("upcoming_in")
    invoice["automatic_tax"]["enabled"] = params.get("automatic_tax", {}).get("enabled", False)
    call.store.insert(invoice, created=call.now)
    for place, fields in enumerate(params["invoice_items"]):
        name = f"invoice_items[{place}]"
        if fields.get("currency", currency) != currency:
            raise refused("All items must have the invoice's currency.", param=f"{name}[currency]")
        add(call, invoice, fields, name)
    retotal(call, invoice)
    due = max(invoice["total"] + customer["balance"], 0)
    invoice.update(amount_due=due, amount_remaining=due)
    return public(call, invoice)
