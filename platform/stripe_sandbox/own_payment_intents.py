"""Payment intents of their own, without an invoice: created and confirmed through the API.

Confirming charges the card named. Off session nobody can answer the issuer's question, so a card
that asks for its holder declines with `authentication_required`; on session the intent waits as
`requires_action` and the page in `next_action` asks. A decline is answered 402 and leaves the
intent behind, ready for another card.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import disputes, ids, payment_intents
from stripe_sandbox.balance import MINIMUM_CHARGE_MINOR
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.cards import AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED
from stripe_sandbox.errors import refused
from stripe_sandbox.events import emit
from stripe_sandbox.invoice_states import MAX_CHARGE_MINOR
from stripe_sandbox.params import (
    MAX_AMOUNT_MINOR,
    Choice,
    Currency,
    Flag,
    Integer,
    Link,
    Metadata,
    Parameter,
    Reference,
    Rows,
    Shape,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.payment_methods import attach_to, card_of, declined, must_authenticate, resolve
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

CARD_ONLY = Rows(Choice(("card",)), max_rows=1)
AUTOMATIC_METHODS = Shape(
    {"enabled": Flag(), "allow_redirects": Choice(("always", "never"))}, required=("enabled",)
)
GONE = ("payment_method_types",)

_EDITABLE: Mapping[str, Parameter] = {
    "amount": Integer(1, MAX_AMOUNT_MINOR),
    "description": Text(max_chars=1_000),
    "metadata": Metadata(),
    "payment_method": Reference(),
    "receipt_email": Text(max_chars=800),
    "setup_future_usage": Choice(("off_session", "on_session")),
    "statement_descriptor": Text(max_chars=22),
    "statement_descriptor_suffix": Text(max_chars=22),
}
_CONFIRMING: Mapping[str, Parameter] = {
    "error_on_requires_action": Flag(),
    "off_session": Flag(),
    "return_url": Link(),
}
CREATE = Takes(
    {
        **_EDITABLE,
        **_CONFIRMING,
        "allowed_payment_method_types": CARD_ONLY,
        "automatic_payment_methods": AUTOMATIC_METHODS,
        "capture_method": Choice(("automatic", "automatic_async")),
        "confirm": Flag(),
        "currency": Currency(),
        "customer": Reference(),
    },
    required=("amount", "currency"),
    gone=GONE,
)
UPDATE = Takes({**_EDITABLE, "customer": Reference()}, gone=GONE)
CONFIRM = Takes(
    {
        **_CONFIRMING,
        "payment_method": Reference(),
        "receipt_email": Text(max_chars=800),
        "setup_future_usage": Choice(("off_session", "on_session")),
    },
    gone=GONE,
)
CANCEL = Takes(
    {
        "cancellation_reason": Choice(
            ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
        )
    }
)

_WAITING = ("requires_payment_method", "requires_confirmation", "requires_action")


def create(call: Call) -> Document | Answer:
    params = call.params
    if params.get("off_session") and not params.get("confirm"):
        raise refused("`off_session` may be passed only with `confirm=true`.", param="off_session")
    customer = call.named("customer", "customer")
    intent = draft(call, params["amount"], params["currency"], customer)
    intent.update(
        automatic_payment_methods=params.get("automatic_payment_methods")
        and {"allow_redirects": "always", **params["automatic_payment_methods"]},
        allowed_payment_method_types=params.get("allowed_payment_method_types"),
        capture_method=params.get("capture_method", "automatic"),
    )
    _apply(call, intent, params)
    call.store.insert(intent, created=call.now)
    emit(call, "payment_intent.created", public(call, intent))
    if params.get("confirm"):
        return _confirm(call, intent)
    return public(call, intent)


def draft(call: Call, amount_minor: int, currency: str, customer: Document | None) -> Document:
    """An intent of its own, not stored yet; 400 for an amount no charge can have."""
    minimum_minor = MINIMUM_CHARGE_MINOR.get(currency, 1)
    if amount_minor < minimum_minor:
        raise refused(
            f"Amount must be at least {minimum_minor} {currency}",
            code="amount_too_small",
            param="amount",
        )
    if amount_minor > MAX_CHARGE_MINOR:
        raise refused(
            f"Amount must be no more than {MAX_CHARGE_MINOR} {currency}",
            code="amount_too_large",
            param="amount",
        )
    intent = payment_intents.blank(call, amount_minor, currency)
    intent["customer"] = None if customer is None else customer["id"]
    intent["_page_token"] = ids.secret("test")
    return intent


def update(call: Call) -> Document:
    intent = _own(call)
    if intent["status"] not in _WAITING:
        raise _unexpected(intent, "update", intent["status"])
    customer = call.named("customer", "customer")
    if customer is not None:
        intent["customer"] = customer["id"]
    if "amount" in call.params:
        draft(call, call.params["amount"], intent["currency"], None)  # for its bounds
    _apply(call, intent, call.params)
    call.store.put(intent)
    return public(call, intent)


def confirm(call: Call) -> Document | Answer:
    intent = _own(call)
    if intent["status"] not in ("requires_payment_method", "requires_confirmation"):
        raise _unexpected(intent, "confirm", intent["status"])
    _apply(call, intent, call.params)
    call.store.put(intent)
    return _confirm(call, intent)


def cancel(call: Call) -> Document:
    intent = _own(call)
    if intent["status"] not in _WAITING:
        raise _unexpected(intent, "cancel", intent["status"])
    payment_intents.cancel(call, intent, call.params.get("cancellation_reason"))
    return public(call, intent)


def _confirm(call: Call, intent: Document) -> Document | Answer:
    params = call.params
    method = call.store.find("payment_method", intent["payment_method"] or "")
    if method is None:
        raise refused(
            "You cannot confirm this PaymentIntent because it's missing a payment method. To "
            "confirm the PaymentIntent, specify a payment method attached to this customer along "
            "with the customer ID.",
            code="payment_intent_unexpected_state",
        )
    automatic = intent["automatic_payment_methods"] or {}
    redirects = automatic.get("enabled") and automatic.get("allow_redirects") != "never"
    if redirects and not params.get("return_url") and not params.get("off_session"):
        raise refused(
            "This PaymentIntent is configured to accept payment methods that might redirect your "
            "customer off of your page: you must provide a `return_url`, or set "
            "`automatic_payment_methods[allow_redirects]` to `never`.",
            param="return_url",
        )
    intent["_return_url"] = params.get("return_url")
    refusal = card_of(method).refusal
    if refusal is None and must_authenticate(method):
        if not params.get("off_session") and not params.get("error_on_requires_action"):
            page = f"{call.base_url}/authenticate/acct_sandbox/{intent['_page_token']}"
            payment_intents.ask_customer(call, intent, method, page)
            return public(call, intent)
        refusal = AUTHENTICATION_REQUIRED
    if refusal is not None:
        payment_intents.fail(call, intent, method, refusal)
        answer = declined(refusal, payment_intent=public(call, intent))
        return Answer(answer.status, answer.body())
    complete(call, intent, method)
    return public(call, intent)


def complete(call: Call, intent: Document, method: Document) -> None:
    """The card pays; it is kept for the customer where that was asked for."""
    customer = call.store.find("customer", intent["customer"] or "")
    if intent["setup_future_usage"] and customer is not None and method["customer"] is None:
        attach_to(call, method, customer)
    charge = payment_intents.succeed(call, intent, method)
    disputes.open_if_card_says_so(call, charge, method)


def answer_issuer(call: Call, intent: Document, *, proven: bool) -> None:
    """The holder's answer on the page that asks."""
    method = call.store.find("payment_method", intent["payment_method"] or "")
    if method is None or intent["status"] != "requires_action":
        raise refused("This payment is not waiting for authentication.")
    if proven:
        method["_authenticated"] = True
        call.store.put(method)
        complete(call, intent, method)
    else:
        payment_intents.fail(call, intent, method, AUTHENTICATION_FAILED)


def _own(call: Call) -> Document:
    intent = call.in_path("payment_intent")
    if intent["_link"] is not None:
        raise refused(
            "This PaymentIntent belongs to an invoice: it is paid, voided and cancelled through "
            "that invoice.",
            code="payment_intent_unexpected_state",
        )
    return intent


def _apply(call: Call, intent: Document, params: Mapping[str, Any]) -> None:
    for name in _EDITABLE:
        if name not in params or name == "payment_method":
            continue
        value = params[name]
        intent[name] = merged_metadata(intent["metadata"], value) if name == "metadata" else value
    if "payment_method" in params:
        method = resolve(call, params["payment_method"])
        check_owner(method, intent["customer"])
        intent["payment_method"] = method["id"]
        intent["status"] = "requires_confirmation"


def check_owner(method: Document, customer_id: str | None) -> None:
    """A saved card serves its own customer only."""
    if method.get("_spent"):
        raise refused("This PaymentMethod was detached from a Customer and may not be used again.")
    if method["customer"] not in (None, customer_id):
        raise refused(
            "The provided PaymentMethod is attached to a Customer: name that customer to use it."
            if customer_id is None
            else f"The customer {customer_id} does not have the payment method {method['id']}.",
            param="payment_method",
        )


def _unexpected(intent: Document, act: str, status: str) -> Exception:
    return refused(
        f"You cannot {act} this PaymentIntent because it has a status of {status}.",
        code="payment_intent_unexpected_state",
    )
