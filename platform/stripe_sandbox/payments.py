"""Collecting an invoice: with the card on file, with one named, out of band, or by the customer.

A declined attempt keeps its effects (attempt counted, events told, intent marked) and answers
402; the invoice stays where it was. Attempts are counted as Stripe documents: the first one of
any kind, then only automatic retries.
"""

from stripe_sandbox import disputes, payment_intents
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.cards import AUTHENTICATION_FAILED
from stripe_sandbox.collection import schedule_collection
from stripe_sandbox.errors import StripeError, refused
from stripe_sandbox.events import emit_change
from stripe_sandbox.invoice_moves import require
from stripe_sandbox.invoice_states import become_paid, cancel_payment_for_cash
from stripe_sandbox.invoices import save
from stripe_sandbox.params import Flag, Reference, Takes
from stripe_sandbox.payment_methods import card_of, declined, must_authenticate
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

PAY = Takes(
    {
        "off_session": Flag(),
        "paid_out_of_band": Flag(),
        "payment_method": Reference(),
    }
)


def pay(call: Call) -> Document | Answer:
    invoice = call.in_path("invoice")
    require(invoice, "pay")
    if call.params.get("paid_out_of_band"):
        cancel_payment_for_cash(call, invoice)
        become_paid(call, invoice, "invoice.paid")
        return public(call, invoice)
    method = _method_for(call, invoice, call.params.get("payment_method"))
    if method is None:
        raise refused(
            "There is no `default_payment_method` set on this Customer or Invoice. Please set one "
            "and try again."
        )
    refusal = charge(call, invoice, method)
    if refusal is not None:
        return Answer(refusal.status, refusal.body())
    return public(call, invoice)


def collect_by_timer(call: Call, invoice: Document) -> None:
    """The automatic attempt of an open invoice. Without a card it fails like any other."""
    method = _method_for(call, invoice, None)
    if method is None:
        _note_failure(call, invoice, automatic=True)
        return
    charge(call, invoice, method, automatic=True)


def charge(
    call: Call, invoice: Document, method: Document, *, automatic: bool = False
) -> StripeError | None:
    """Try the card; the 402 to answer if it did not pay."""
    intent = payment_intents.of_invoice(call, invoice)
    if intent is None:
        raise RuntimeError(f"{invoice['id']} is open without a payment intent")
    card = card_of(method)
    if card.refusal is not None:
        payment_intents.fail(call, intent, method, card.refusal)
        _note_failure(call, invoice, automatic=automatic)
        return declined(card.refusal, payment_intent=public(call, intent))
    if must_authenticate(method):
        page_url = public(call, invoice)["hosted_invoice_url"]
        payment_intents.ask_customer(call, intent, method, page_url)
        _note_failure(call, invoice, "invoice.payment_action_required", automatic=automatic)
        return StripeError(
            402,
            "This payment requires additional user action before it can be completed successfully. "
            "Payment can be completed using the PaymentIntent associated with the invoice.",
            kind="card_error",
            code="invoice_payment_intent_requires_action",
            fields={"payment_intent": public(call, intent)},
        )
    _succeed(call, invoice, intent, method)
    return None


def authenticate(call: Call, invoice: Document, *, proven: bool) -> None:
    """The customer's answer to the issuer's question, given on the hosted page."""
    intent = payment_intents.of_invoice(call, invoice)
    if intent is None or intent["status"] != "requires_action":
        raise refused("This payment is not waiting for authentication.")
    method = call.store.find("payment_method", intent["payment_method"])
    if method is None:
        raise RuntimeError(f"{intent['id']} has lost its payment method")
    if proven:
        _succeed(call, invoice, intent, method)
        return
    payment_intents.fail(call, intent, method, AUTHENTICATION_FAILED)
    _note_failure(call, invoice)


def _succeed(call: Call, invoice: Document, intent: Document, method: Document) -> None:
    if invoice["attempt_count"] == 0:
        invoice["attempt_count"] = 1
    charge = payment_intents.succeed(call, intent, method)
    become_paid(call, invoice, "invoice.paid", "invoice.payment_succeeded")
    disputes.open_if_card_says_so(call, charge, method)


def _note_failure(
    call: Call, invoice: Document, *event_types: str, automatic: bool = False
) -> None:
    stored = call.store.find("invoice", invoice["id"]) or invoice
    before = public(call, stored)
    first = invoice["attempt_count"] == 0
    invoice["attempted"] = True
    if first or automatic:
        invoice["attempt_count"] += 1
        schedule_collection(call, invoice)
    save(call, invoice, before, *event_types, "invoice.payment_failed")
    customer = call.store.find("customer", invoice["customer"])
    if automatic and customer is not None and not customer["delinquent"]:
        told = public(call, customer)
        customer["delinquent"] = True
        call.store.put(customer)
        emit_change(call, "customer.updated", told, public(call, customer))


def _method_for(call: Call, invoice: Document, method_id: str | None) -> Document | None:
    """The named one, the invoice's, or the customer's default; it must be the customer's own."""
    customer = call.store.find("customer", invoice["customer"])
    chosen = method_id or invoice["default_payment_method"]
    if chosen is None and customer is not None:
        chosen = customer["invoice_settings"]["default_payment_method"]
    if chosen is None:
        return None
    method = call.store.find("payment_method", chosen)
    if method is None or method["customer"] != invoice["customer"]:
        if method_id is None:
            return None  # a default that has been detached since
        raise refused(
            f"The customer does not have a payment method with the ID {method_id}. The payment "
            "method must be attached to the customer.",
            code="resource_missing",
            param="payment_method",
        )
    return method
