"""The payment behind an invoice: one payment intent and its link, the invoice payment.

Both are made at finalization and change together; the functions here are the only ones that
change them. Intents without an invoice are `own_payment_intents`.
"""

from typing import Any

from stripe_sandbox import charges, ids
from stripe_sandbox.call import Call
from stripe_sandbox.cards import Refusal
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import Choice, Reference, Shape, Span, Takes
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

RETRIEVE = Takes({"client_secret": Reference()})
LIST = Takes({**PAGE, "created": Span(), "customer": Reference()})
RETRIEVE_LINK = Takes()
LIST_LINKS = Takes(
    {
        **PAGE,
        "created": Span(),
        "invoice": Reference(),
        "payment": Shape(
            {"payment_intent": Reference(), "type": Choice(("payment_intent",))},
            required=("type",),
        ),
        "status": Choice(("open", "paid", "canceled")),
    }
)


_NOTHING_YET = (
    *("allowed_payment_method_types", "application", "application_fee_amount"),
    *("automatic_payment_methods", "canceled_at", "cancellation_reason"),
    *("customer", "customer_account", "description", "excluded_payment_method_types"),
    *("last_payment_error", "latest_charge", "next_action", "on_behalf_of", "payment_method"),
    *("payment_method_configuration_details", "presentment_details", "processing"),
    *("receipt_email", "review", "setup_future_usage", "shipping", "source"),
    *("statement_descriptor", "statement_descriptor_suffix", "transfer_data", "transfer_group"),
)


def blank(call: Call, amount_minor: int, currency: str) -> Document:
    """An intent that waits for a card, not stored yet."""
    intent_id = ids.new("pi")
    return {
        "id": intent_id,
        "object": "payment_intent",
        **dict.fromkeys(_NOTHING_YET),
        "amount": amount_minor,
        "amount_capturable": 0,
        "amount_received": 0,
        "capture_method": "automatic",
        "client_secret": ids.secret(f"{intent_id}_secret"),
        "confirmation_method": "automatic",
        "created": call.now,
        "currency": currency,
        "livemode": False,
        "metadata": {},
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        "_link": None,
        "_return_url": None,
    }


def open_payment(call: Call, invoice: Document) -> None:
    """An intent over the amount due, waiting for a card; the caller writes the invoice."""
    intent = blank(call, invoice["amount_due"], invoice["currency"])
    intent["customer"] = invoice["customer"]
    intent["description"] = f"Payment for invoice {invoice['number']}"
    link: Document = {
        "id": ids.new("inpay"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_due"],
        "created": call.now,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    intent["_link"] = link["id"]
    invoice["_intent"] = intent["id"]
    call.store.insert(intent, created=call.now)
    call.store.insert(link, created=call.now)
    emit(call, "payment_intent.created", public(call, intent))


def of_invoice(call: Call, invoice: Document) -> Document | None:
    """The intent behind a finalized invoice; None when nothing was due."""
    if invoice["_intent"] is None:
        return None
    return call.store.find("payment_intent", invoice["_intent"])


def succeed(call: Call, intent: Document, method: Document) -> Document:
    """The card was charged; returns the charge."""
    charge = charges.make(call, intent, method, None)
    intent.update(
        amount_received=intent["amount"],
        last_payment_error=None,
        latest_charge=charge["id"],
        next_action=None,
        payment_method=method["id"],
        status="succeeded",
    )
    call.store.put(intent)
    emit(call, "payment_intent.succeeded", public(call, intent))
    link = _link_of(call, intent)
    if link is None:
        return charge
    link["amount_paid"] = intent["amount"]
    link["status"] = "paid"
    link["status_transitions"]["paid_at"] = call.now
    call.store.put(link)
    emit(call, "invoice_payment.paid", public(call, link))
    return charge


def fail(call: Call, intent: Document, method: Document, refusal: Refusal) -> None:
    """The issuer said no; another card may be tried."""
    charge = charges.make(call, intent, method, refusal)
    intent.update(
        latest_charge=charge["id"],
        last_payment_error={
            "charge": charge["id"],
            "code": refusal.code,
            "decline_code": refusal.decline_code,
            "doc_url": f"https://stripe.com/docs/error-codes/{refusal.code.replace('_', '-')}",
            "message": refusal.message,
            "payment_method": public(call, method),
            "type": "card_error",
        },
        next_action=None,
        payment_method=None,
        status="requires_payment_method",
    )
    call.store.put(intent)
    emit(call, "payment_intent.payment_failed", public(call, intent))


def ask_customer(call: Call, intent: Document, method: Document, page_url: str) -> None:
    """The issuer wants to see the card's holder first; the hosted page is where that happens."""
    intent.update(
        last_payment_error=None,
        next_action={
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": intent["_return_url"], "url": page_url},
        },
        payment_method=method["id"],
        status="requires_action",
    )
    call.store.put(intent)
    emit(call, "payment_intent.requires_action", public(call, intent))


def cancel(call: Call, intent: Document, reason: str | None) -> None:
    """Nothing will be collected through this intent any more."""
    intent.update(
        canceled_at=call.now, cancellation_reason=reason, next_action=None, status="canceled"
    )
    call.store.put(intent)
    emit(call, "payment_intent.canceled", public(call, intent))
    link = _link_of(call, intent)
    if link is None:
        return
    link["status"] = "canceled"
    link["status_transitions"]["canceled_at"] = call.now
    call.store.put(link)


def resize(call: Call, invoice: Document) -> None:
    """The invoice's intent collects what remains of it now."""
    intent = of_invoice(call, invoice)
    if intent is None or intent["status"] in ("succeeded", "canceled"):
        return
    intent["amount"] = invoice["amount_remaining"]
    call.store.put(intent)
    link = _link_of(call, intent)
    if link is not None:
        link["amount_requested"] = invoice["amount_remaining"]
        call.store.put(link)


def _link_of(call: Call, intent: Document) -> Document | None:
    """The invoice payment; None for an intent of its own."""
    if intent["_link"] is None:
        return None
    link = call.store.find("invoice_payment", intent["_link"])
    if link is None:
        raise RuntimeError(f"{intent['id']} has lost its invoice payment")
    return link


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("payment_intent"))


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    if "customer" in call.params:
        where.append(("customer = ?", call.params["customer"]))
    found = page(call, "payment_intent", "/v1/payment_intents", where)
    found["data"] = [public(call, intent) for intent in found["data"]]
    return found


def retrieve_link(call: Call) -> Document:
    return public(call, call.in_path("invoice_payment"))


def list_links(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    if "invoice" in call.params:
        where.append(("invoice = ?", call.params["invoice"]))
    if "status" in call.params:
        where.append(("label = ?", call.params["status"]))
    intent_id = call.params.get("payment", {}).get("payment_intent")
    if intent_id is not None:
        where.append(("json_extract(body, '$.payment.payment_intent') = ?", intent_id))
    found = page(call, "invoice_payment", "/v1/invoice_payments", where)
    found["data"] = [public(call, link) for link in found["data"]]
    return found
