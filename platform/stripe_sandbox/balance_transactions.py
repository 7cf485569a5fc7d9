"""Every change of a customer's balance, as a row that says why; the rows add up to the balance.

Stripe's sign: a negative balance is credit. Whoever changes a balance writes the customer itself
and records the change here, in the same transaction.
"""

from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.events import emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    Currency,
    Integer,
    Metadata,
    Reference,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

_KIND = "customer_balance_transaction"
MAX_DESCRIPTION_CHARS = 350

CREATE = Takes(
    {
        "amount": Integer(),
        "currency": Currency(),
        "description": Text(max_chars=MAX_DESCRIPTION_CHARS),
        "metadata": Metadata(),
    },
    required=("amount", "currency"),
)
RETRIEVE = Takes()
UPDATE = Takes({"description": Text(max_chars=MAX_DESCRIPTION_CHARS), "metadata": Metadata()})
LIST = Takes({**PAGE, "created": Span(), "invoice": Reference()})


def record(
    call: Call,
    customer: Document,
    amount_minor: int,
    why: str,
    *,
    currency: str | None = None,
    **about: str | None,
) -> Document:
    """The row of a change already made on `customer`; `about` names what caused it."""
    row: Document = {
        "id": ids.new("cbtxn"),
        "object": _KIND,
        "amount": amount_minor,
        "checkout_session": None,
        "created": call.now,
        "credit_note": about.get("credit_note"),
        "currency": currency or customer["currency"] or "usd",
        "customer": customer["id"],
        "customer_account": None,
        "description": about.get("description"),
        "ending_balance": customer["balance"],
        "invoice": about.get("invoice"),
        "livemode": False,
        "metadata": {},
        "type": why,
    }
    call.store.insert(row, created=call.now)
    return row


def create(call: Call) -> Document:
    customer = call.in_path("customer")
    before = public(call, customer)
    currency = call.params["currency"]
    if customer["currency"] not in (None, currency):
        raise refused(
            f"You cannot combine currencies on a single customer. This customer has {currency} "
            f"and {customer['currency']}.",
            param="currency",
        )
    customer["currency"] = currency
    customer["balance"] += call.params["amount"]
    call.store.put(customer)
    row = record(
        call,
        customer,
        call.params["amount"],
        "adjustment",
        description=call.params.get("description"),
    )
    row["metadata"] = merged_metadata({}, call.params.get("metadata", {}))
    call.store.put(row)
    emit_change(call, "customer.updated", before, public(call, customer))
    return public(call, row)


def retrieve(call: Call) -> Document:
    return public(call, _in_path(call))


def update(call: Call) -> Document:
    row = _in_path(call)
    if "description" in call.params:
        row["description"] = call.params["description"]
    if "metadata" in call.params:
        row["metadata"] = merged_metadata(row["metadata"], call.params["metadata"])
    call.store.put(row)
    return public(call, row)


def list_all(call: Call) -> Document:
    customer = call.in_path("customer")
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    where.append(("customer = ?", customer["id"]))
    if "invoice" in call.params:
        where.append(("invoice = ?", call.params["invoice"]))
    found = page(call, _KIND, f"/v1/customers/{customer['id']}/balance_transactions", where)
    found["data"] = [public(call, row) for row in found["data"]]
    return found


def _in_path(call: Call) -> Document:
    customer = call.in_path("customer")
    row = call.store.find(_KIND, call.path["transaction"])
    if row is None or row["customer"] != customer["id"]:
        raise no_such(_KIND, call.path["transaction"], "transaction", in_path=True)
    return row
