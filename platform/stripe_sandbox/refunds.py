"""Refunds: money of a charge given back, whole or in parts, never more than was paid.

A refund succeeds at once. `_credited` counts how much of it credit notes stand for: what they do
not stand for lowers what can still be credited on the invoice.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import charges, ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    MAX_AMOUNT_MINOR,
    Choice,
    Integer,
    Metadata,
    Reference,
    Span,
    Takes,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

CREATE = Takes(
    {
        "amount": Integer(1, MAX_AMOUNT_MINOR),
        "charge": Reference(),
        "metadata": Metadata(),
        "payment_intent": Reference(),
        "reason": Choice(("duplicate", "fraudulent", "requested_by_customer")),
    }
)
RETRIEVE = Takes()
UPDATE = Takes({"metadata": Metadata()})
LIST = Takes(
    {**PAGE, "charge": Reference(), "created": Span(), "payment_intent": Reference()},
)

_NOTHING = (
    *("balance_transaction", "receipt_number", "source_transfer_reversal", "transfer_reversal"),
)


def create(call: Call) -> Document:
    charge = call.named("charge", "charge")
    intent = call.named("payment_intent", "payment_intent")
    if charge is None and intent is None:
        raise missing_parameter("payment_intent")
    if charge is None:
        charge = charges.of_intent(call, intent)
    if charge is None:
        raise refused(
            f"This PaymentIntent ({call.params['payment_intent']}) does not have a successful "
            "charge to refund.",
            param="payment_intent",
        )
    if intent is not None and charge["payment_intent"] != intent["id"]:
        raise refused("The charge does not belong to the payment intent.", param="charge")
    refund = give_back(
        call,
        charge,
        call.params.get("amount", charge["amount_captured"] - charge["amount_refunded"]),
        reason=call.params.get("reason"),
        metadata=call.params.get("metadata", {}),
    )
    return public(call, refund)


def give_back(
    call: Call,
    charge: Document,
    amount_minor: int,
    *,
    reason: str | None = None,
    metadata: Mapping[str, str | None] | None = None,
    credited_minor: int = 0,
) -> Document:
    """Refund part of a charge; 400 when that is more than is left of it."""
    left_minor = charge["amount_captured"] - charge["amount_refunded"]
    if charge["disputed"]:
        raise refused(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )
    if not charge["paid"]:
        raise refused(f"Charge {charge['id']} did not succeed; there is nothing to refund.")
    if left_minor == 0:
        raise refused(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded"
        )
    if amount_minor > left_minor:
        raise refused(
            f"Refund amount ({amount_minor}) is greater than unrefunded amount on charge "
            f"({left_minor}) in {charge['currency']}.",
            param="amount",
        )
    refund: Document = {
        "id": ids.new("re"),
        "object": "refund",
        **dict.fromkeys(_NOTHING),
        "amount": amount_minor,
        "charge": charge["id"],
        "created": call.now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number",
                     "type": "refund"},
            "type": "card",
        },
        "metadata": merged_metadata({}, metadata or {}),
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": reason,
        "status": "succeeded",
        "_credited": credited_minor,
    }  # fmt: skip
    call.store.insert(refund, created=call.now)
    emit(call, "refund.created", public(call, refund))
    refunded_minor = charge["amount_refunded"] + amount_minor
    charges.change(
        call,
        charge,
        "charge.refunded",
        amount_refunded=refunded_minor,
        refunded=refunded_minor == charge["amount_captured"],
    )
    return refund


def of_charge(call: Call, charge_id: str) -> list[Document]:
    """Every refund of a charge, newest first."""
    where = [("json_extract(body, '$.charge') = ?", charge_id)]
    return call.store.select("refund", where, limit=10_000)


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("refund"))


def update(call: Call) -> Document:
    refund = call.in_path("refund")
    before = public(call, refund)
    if "metadata" in call.params:
        refund["metadata"] = merged_metadata(refund["metadata"], call.params["metadata"])
    call.store.put(refund)
    emit_change(call, "refund.updated", before, public(call, refund))
    return public(call, refund)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("charge", "payment_intent"):
        if name in call.params:
            # The name is one of the two literals above; the value is bound.
            where.append((f"json_extract(body, '$.{name}') = ?", call.params[name]))
    found = page(call, "refund", "/v1/refunds", where)
    found["data"] = [public(call, refund) for refund in found["data"]]
    return found
