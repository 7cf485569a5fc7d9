"""Setup intents: a card proven and kept for later charges, without charging it now.

Succeeding attaches the card to the intent's customer, if it has one. A card no issuer lets be
saved is answered 402; one that asks for its holder waits as `requires_action` on its page.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.cards import AUTHENTICATION_FAILED, Refusal
from stripe_sandbox.errors import refused
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.own_payment_intents import AUTOMATIC_METHODS, CARD_ONLY, GONE, check_owner
from stripe_sandbox.params import (
    Choice,
    Flag,
    Link,
    Metadata,
    Reference,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.payment_methods import attach_to, card_of, declined, must_authenticate, resolve
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

CREATE = Takes(
    {
        "allowed_payment_method_types": CARD_ONLY,
        "automatic_payment_methods": AUTOMATIC_METHODS,
        "confirm": Flag(),
        "customer": Reference(),
        "description": Text(max_chars=1_000),
        "metadata": Metadata(),
        "payment_method": Reference(),
        "return_url": Link(),
        "usage": Choice(("off_session", "on_session")),
    },
    gone=GONE,
)
UPDATE = Takes(
    {
        "customer": Reference(),
        "description": Text(max_chars=1_000),
        "metadata": Metadata(),
        "payment_method": Reference(),
    },
    gone=GONE,
)
CONFIRM = Takes({"payment_method": Reference(), "return_url": Link()}, gone=GONE)
CANCEL = Takes({"cancellation_reason": Choice(("abandoned", "duplicate", "requested_by_customer"))})
RETRIEVE = Takes({"client_secret": Reference()})
LIST = Takes(
    {**PAGE, "created": Span(), "customer": Reference(), "payment_method": Reference()},
)

_NOTHING_YET = (
    *("application", "attach_to_self", "cancellation_reason", "customer", "customer_account"),
    *("description", "excluded_payment_method_types", "flow_directions", "last_setup_error"),
    *("latest_attempt", "mandate", "next_action", "on_behalf_of", "payment_method"),
    *("payment_method_configuration_details", "single_use_mandate"),
)
_WAITING = ("requires_payment_method", "requires_confirmation", "requires_action")


def create(call: Call) -> Document | Answer:
    params = call.params
    intent = make(call, call.named("customer", "customer"), params)
    if params.get("confirm"):
        return _confirm(call, intent)
    return public(call, intent)


def make(call: Call, customer: Document | None, fields: Mapping[str, Any]) -> Document:
    """A stored intent; also behind a Checkout that saves a card."""
    intent_id = ids.new("seti")
    automatic = fields.get("automatic_payment_methods")
    intent: Document = {
        "id": intent_id,
        "object": "setup_intent",
        **dict.fromkeys(_NOTHING_YET),
        "allowed_payment_method_types": fields.get("allowed_payment_method_types"),
        "automatic_payment_methods": automatic and {"allow_redirects": "always", **automatic},
        "client_secret": ids.secret(f"{intent_id}_secret"),
        "created": call.now,
        "customer": None if customer is None else customer["id"],
        "livemode": False,
        "metadata": {},
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        "usage": fields.get("usage", "off_session"),
        "_page_token": ids.secret("test"),
        "_return_url": None,
    }
    _apply(call, intent, fields)
    call.store.insert(intent, created=call.now)
    emit(call, "setup_intent.created", public(call, intent))
    return intent


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("setup_intent"))


def update(call: Call) -> Document:
    intent = _waiting(call, "update")
    customer = call.named("customer", "customer")
    if customer is not None:
        intent["customer"] = customer["id"]
    _apply(call, intent, call.params)
    call.store.put(intent)
    return public(call, intent)


def confirm(call: Call) -> Document | Answer:
    intent = _waiting(call, "confirm")
    _apply(call, intent, call.params)
    return _confirm(call, intent)


def cancel(call: Call) -> Document:
    intent = _waiting(call, "cancel")
    intent.update(
        cancellation_reason=call.params.get("cancellation_reason"),
        next_action=None,
        status="canceled",
    )
    _write(call, intent, "setup_intent.canceled")
    return public(call, intent)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    if "customer" in call.params:
        where.append(("customer = ?", call.params["customer"]))
    if "payment_method" in call.params:
        where.append(("json_extract(body, '$.payment_method') = ?", call.params["payment_method"]))
    found = page(call, "setup_intent", "/v1/setup_intents", where)
    found["data"] = [public(call, intent) for intent in found["data"]]
    return found


def save_card(call: Call, intent: Document, method: Document) -> Refusal | None:
    """Try to keep the card; the issuer's no, or None when it was kept or its holder is asked."""
    card = card_of(method)
    if card.refusal is not None and card.unattachable:
        _fail(call, intent, method, card.refusal)
        return card.refusal
    if must_authenticate(method):
        page_url = f"{call.base_url}/authenticate/acct_sandbox/{intent['_page_token']}"
        intent.update(
            last_setup_error=None,
            next_action={
                "type": "redirect_to_url",
                "redirect_to_url": {"return_url": intent["_return_url"], "url": page_url},
            },
            payment_method=method["id"],
            status="requires_action",
        )
        _write(call, intent, "setup_intent.requires_action")
        return None
    _succeed(call, intent, method)
    return None


def answer_issuer(call: Call, intent: Document, *, proven: bool) -> None:
    """The holder's answer on the page that asks."""
    method = call.store.find("payment_method", intent["payment_method"] or "")
    if method is None or intent["status"] != "requires_action":
        raise refused("This setup is not waiting for authentication.")
    if proven:
        method["_authenticated"] = True
        call.store.put(method)
        _succeed(call, intent, method)
    else:
        _fail(call, intent, method, AUTHENTICATION_FAILED)


def _confirm(call: Call, intent: Document) -> Document | Answer:
    method = call.store.find("payment_method", intent["payment_method"] or "")
    if method is None:
        raise refused(
            "You cannot confirm this SetupIntent because it's missing a payment method.",
            code="setup_intent_unexpected_state",
        )
    intent["_return_url"] = call.params.get("return_url")
    refusal = save_card(call, intent, method)
    if refusal is None:
        return public(call, intent)
    answer = declined(refusal, setup_intent=public(call, intent))
    return Answer(answer.status, answer.body())


def _succeed(call: Call, intent: Document, method: Document) -> None:
    customer = call.store.find("customer", intent["customer"] or "")
    if customer is not None and method["customer"] is None:
        attach_to(call, method, customer)
    intent.update(
        last_setup_error=None, next_action=None, payment_method=method["id"], status="succeeded"
    )
    _write(call, intent, "setup_intent.succeeded")


def _fail(call: Call, intent: Document, method: Document, refusal: Refusal) -> None:
    intent.update(
        last_setup_error={
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
    _write(call, intent, "setup_intent.setup_failed")


def _apply(call: Call, intent: Document, fields: Mapping[str, Any]) -> None:
    if "description" in fields:
        intent["description"] = fields["description"]
    if "metadata" in fields:
        intent["metadata"] = merged_metadata(intent["metadata"], fields["metadata"])
    if "payment_method" in fields:
        method = resolve(call, fields["payment_method"])
        check_owner(method, intent["customer"])
        intent["payment_method"] = method["id"]
        intent["status"] = "requires_confirmation"


def _waiting(call: Call, act: str) -> Document:
    intent = call.in_path("setup_intent")
    if intent["status"] not in _WAITING:
        raise refused(
            f"You cannot {act} this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
        )
    return intent


def _write(call: Call, intent: Document, event_type: str) -> None:
    call.store.put(intent)
    emit(call, event_type, public(call, intent))
