"""Charges: one try at a card, made when a payment intent is confirmed, whether or not it paid.

A charge knows what was refunded of it and whether it is disputed; `refunds` and `disputes` say so
through `change`. Fees and payouts are not simulated: `balance_transaction` stays null.
"""

from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.cards import Refusal
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import Metadata, Reference, Span, Takes, Text, merged_metadata
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

RETRIEVE = Takes()
UPDATE = Takes({"description": Text(), "metadata": Metadata()})
LIST = Takes(
    {**PAGE, "created": Span(), "customer": Reference(), "payment_intent": Reference()},
)

_NOTHING_YET = (
    *("application", "application_fee", "application_fee_amount", "balance_transaction"),
    *("failure_balance_transaction", "failure_code", "failure_message", "on_behalf_of"),
    *("receipt_email", "receipt_number", "review", "shipping", "source", "source_transfer"),
    *("statement_descriptor", "statement_descriptor_suffix", "transfer_data", "transfer_group"),
)
_APPROVED = {
    **dict.fromkeys(("advice_code", "network_advice_code", "network_decline_code", "reason")),
    "network_status": "approved_by_network",
    "risk_level": "normal",
    "risk_score": 20,
    "seller_message": "Payment complete.",
    "type": "authorized",
}


def make(call: Call, intent: Document, method: Document, refusal: Refusal | None) -> Document:
    """Try the card over the intent's amount; `refusal` is the issuer's no."""
    charge: Document = {
        "id": ids.new("ch"),
        "object": "charge",
        **dict.fromkeys(_NOTHING_YET),
        "amount": intent["amount"],
        "amount_captured": 0 if refusal else intent["amount"],
        "amount_refunded": 0,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "STRIPE SANDBOX",
        "captured": refusal is None,
        "created": call.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "outcome": dict(_APPROVED),
        "paid": refusal is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"card": _card(method, intent["amount"]), "type": "card"},
        "radar_options": {},
        "refunded": False,
        "status": "failed" if refusal else "succeeded",
        "_receipt_token": ids.secret("test"),
    }
    if refusal is not None:
        charge.update(failure_code=refusal.code, failure_message=refusal.message)
        charge["outcome"].update(
            network_decline_code="05",
            network_status="declined_by_network",
            reason=refusal.decline_code,
            seller_message="The bank did not return any further details with this decline.",
            type="issuer_declined",
        )
    call.store.insert(charge, created=call.now)
    emit(call, f"charge.{charge['status']}", public(call, charge))
    return charge


def change(call: Call, charge: Document, *event_types: str, **values: Any) -> None:
    """Write what has become of a charge, and tell."""
    charge.update(values)
    call.store.put(charge)
    for event_type in event_types:
        emit(call, event_type, public(call, charge))


def of_intent(call: Call, intent: Document | None) -> Document | None:
    """The charge that paid an intent; None while nothing has."""
    if intent is None or intent["status"] != "succeeded":
        return None
    return call.store.find("charge", intent["latest_charge"])


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("charge"))


def update(call: Call) -> Document:
    charge = call.in_path("charge")
    if "metadata" in call.params:
        charge["metadata"] = merged_metadata(charge["metadata"], call.params["metadata"])
    if "description" in call.params:
        charge["description"] = call.params["description"]
    change(call, charge, "charge.updated")
    return public(call, charge)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    if "customer" in call.params:
        where.append(("customer = ?", call.params["customer"]))
    if "payment_intent" in call.params:
        where.append(("json_extract(body, '$.payment_intent') = ?", call.params["payment_intent"]))
    found = page(call, "charge", "/v1/charges", where)
    found["data"] = [public(call, charge) for charge in found["data"]]
    return found


def _card(method: Document, amount_minor: int) -> Document:
    card = method["card"]
    same = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {
        **{name: card[name] for name in (*same, "last4", "regulated_status", "wallet")},
        "amount_authorized": amount_minor,
        "authorization_code": "123456",
        "installments": None,
        "mandate": None,
        "network": card["brand"],
        "network_token": {"used": False},
        "network_transaction_id": method["_number"][-9:],
        "three_d_secure": None,
    }
