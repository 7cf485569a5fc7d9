"""Checkout sessions: a hosted page that charges a card (`payment`) or keeps one (`setup`).

The page is at the session's `url` until the session is complete or expired. A payment makes its
payment intent when the customer pays; a setup has its setup intent from the start. Subscriptions
are not simulated.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import (
    customers,
    ids,
    own_payment_intents,
    payment_intents,
    prices,
    setup_intents,
)
from stripe_sandbox.call import Call
from stripe_sandbox.cards import Refusal
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, created_in, page, page_of
from stripe_sandbox.own_payment_intents import CARD_ONLY, GONE
from stripe_sandbox.params import (
    INSTANT,
    MAX_AMOUNT_MINOR,
    Choice,
    Currency,
    DecimalText,
    Flag,
    Integer,
    Link,
    Metadata,
    Reference,
    Rows,
    Shape,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.payment_methods import card_of, must_authenticate
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MIN_OPEN_S, MAX_OPEN_S = 30 * 60, 24 * 3600
MAX_LINES = 100

_PRICE_DATA = Shape(
    {
        "currency": Currency(),
        "product": Reference(),
        "product_data": Shape(
            {"description": Text(), "metadata": Metadata(), "name": Text(keeps=True)},
            required=("name",),
        ),
        "tax_behavior": prices.TAX_BEHAVIOR,
        "unit_amount": Integer(0, MAX_AMOUNT_MINOR),
        "unit_amount_decimal": DecimalText(places=12),
    },
    required=("currency",),
)
CREATE = Takes(
    {
        "allowed_payment_method_types": CARD_ONLY,
        "automatic_tax": Shape({"enabled": Flag(only=False)}, required=("enabled",)),
        "billing_address_collection": Choice(("auto",)),
        "cancel_url": Link(),
        "client_reference_id": Text(max_chars=200),
        "currency": Currency(),
        "customer": Reference(),
        "customer_creation": Choice(("always", "if_required")),
        "customer_email": Text(max_chars=800),
        "expires_at": INSTANT,
        "line_items": Rows(
            Shape(
                {
                    "metadata": Metadata(),
                    "price": Reference(),
                    "price_data": _PRICE_DATA,
                    "quantity": Integer(1, MAX_AMOUNT_MINOR),
                }
            ),
            max_rows=MAX_LINES,
        ),
        "locale": Choice(("auto", "en")),
        "metadata": Metadata(),
        "mode": Choice(("payment", "setup")),
        "payment_intent_data": Shape(
            {
                "description": Text(max_chars=1_000),
                "metadata": Metadata(),
                "receipt_email": Text(max_chars=800),
                "setup_future_usage": Choice(("off_session", "on_session")),
                "statement_descriptor": Text(max_chars=22),
                "statement_descriptor_suffix": Text(max_chars=22),
            }
        ),
        "setup_intent_data": Shape({"description": Text(max_chars=1_000), "metadata": Metadata()}),
        "submit_type": Choice(("auto", "pay")),
        "success_url": Link(),
        "ui_mode": Choice(("hosted_page",)),
    },
    required=("mode",),
    gone=GONE,
)
RETRIEVE = Takes()
UPDATE = Takes({"metadata": Metadata()})
EXPIRE = Takes()
LIST_LINES = Takes(PAGE)
LIST = Takes(
    {
        **PAGE,
        "created": Span(),
        "customer": Reference(),
        "payment_intent": Reference(),
        "status": Choice(("complete", "expired", "open")),
    }
)

_NOTHING = (
    *("adaptive_pricing", "after_expiration", "allow_promotion_codes", "amount_subtotal"),
    *("amount_total", "billing_address_collection", "branding_settings", "client_secret"),
    *("collected_information", "consent", "consent_collection", "currency_conversion"),
    *("customer_account", "customer_details", "invoice", "invoice_creation", "payment_intent"),
    *("payment_link", "payment_method_configuration_details", "permissions", "recovered_from"),
    *("saved_payment_method_options", "setup_intent", "shipping_address_collection"),
    *("shipping_cost", "subscription", "total_details", "url", "wallet_options"),
)
_CUSTOM_TEXT = dict.fromkeys(
    ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
)


def create(call: Call) -> Document:
    params = call.params
    customer = call.named("customer", "customer")
    if "success_url" not in params:
        raise missing_parameter("success_url")
    if customer is not None and "customer_email" in params:
        raise refused(
            "You may only specify one of these parameters: customer, customer_email.",
            param="customer",
        )
    expires_at = params.get("expires_at", call.now + MAX_OPEN_S)
    if not call.now + MIN_OPEN_S <= expires_at <= call.now + MAX_OPEN_S:
        raise refused(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout "
            "Session creation.",
            param="expires_at",
        )
    session = _blank(call, customer, expires_at)
    if params["mode"] == "payment":
        _price(call, session)
    else:
        _prepare_setup(call, session, customer)
    call.store.insert(session, created=call.now, act_at=expires_at)
    return public(call, session)


def _blank(call: Call, customer: Document | None, expires_at: int) -> Document:
    params = call.params
    given = ("cancel_url", "client_reference_id", "customer_creation", "customer_email", "locale")
    return {
        "id": ids.new("cs_test", 58),
        "object": "checkout.session",
        **dict.fromkeys(_NOTHING),
        **{name: params.get(name) for name in (*given, "submit_type", "success_url")},
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "created": call.now,
        "currency": params.get("currency"),
        "custom_fields": [],
        "custom_text": dict(_CUSTOM_TEXT),
        "customer": None if customer is None else customer["id"],
        "expires_at": expires_at,
        "livemode": False,
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "mode": params["mode"],
        "payment_method_collection": "always",
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if params["mode"] == "payment" else "no_payment_required",
        "shipping_options": [],
        "status": "open",
        "ui_mode": "hosted_page",
        "_failed": None,
        "_lines": [],
        "_payment_intent_data": params.get("payment_intent_data") or {},
    }


def _price(call: Call, session: Document) -> None:
    """The lines of a payment, their total and their one currency."""
    asked = call.params.get("line_items") or []
    if not asked:
        raise missing_parameter("line_items")
    if "setup_intent_data" in call.params:
        raise refused("`setup_intent_data` is for `setup` mode only.", param="setup_intent_data")
    session["customer_creation"] = call.params.get("customer_creation", "if_required")
    for place, fields in enumerate(asked):
        session["_lines"].append(_line(call, fields, f"line_items[{place}]"))
    currencies = {line["currency"] for line in session["_lines"]}
    currencies.add(call.params.get("currency") or next(iter(currencies)))
    if len(currencies) > 1:
        raise refused("All prices of a Checkout Session must have one currency.", param="currency")
    total = sum(line["amount_total"] for line in session["_lines"])
    own_payment_intents.draft(call, total, currencies.pop(), None)  # for its bounds
    session.update(
        amount_subtotal=total,
        amount_total=total,
        currency=session["_lines"][0]["currency"],
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    )


def _line(call: Call, fields: Mapping[str, Any], name: str) -> Document:
    if ("price" in fields) == ("price_data" in fields):
        raise refused(f"Pass exactly one of {name}[price] and {name}[price_data].", param=name)
    if "price" in fields:
        price = call.store.find("price", fields["price"])
        if price is None:
            raise no_such("price", fields["price"], f"{name}[price]", in_path=False)
    else:
        price = prices.of_data(call, fields["price_data"], f"{name}[price_data]")
    if price["recurring"] is not None:
        raise refused(
            "You specified `payment` mode but passed a recurring price.", param=f"{name}[price]"
        )
    if price["unit_amount"] is None:
        raise refused(
            "The sandbox does not simulate prices with fractions of a minor unit here: how Stripe "
            "rounds them is not documented.",
            param=f"{name}[price]",
        )
    quantity = fields.get("quantity")
    if quantity is None:
        raise missing_parameter(f"{name}[quantity]")
    amount = price["unit_amount"] * quantity
    product = call.store.find("product", price["product"]) or {}
    return {
        "id": ids.new("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": product.get("name"),
        "metadata": merged_metadata({}, fields.get("metadata", {})),
        "price": public(call, price),
        "quantity": quantity,
    }


def _prepare_setup(call: Call, session: Document, customer: Document | None) -> None:
    if "currency" not in call.params and not call.params.get("allowed_payment_method_types"):
        raise refused(
            "You must pass `currency` in `setup` mode unless `allowed_payment_method_types` is "
            "given.",
            code="parameter_missing",
            param="currency",
        )
    for name in ("line_items", "payment_intent_data", "customer_creation"):
        if name in call.params:
            raise refused(f"`{name}` is for `payment` mode only.", param=name)
    data = call.params.get("setup_intent_data") or {}
    session["setup_intent"] = setup_intents.make(call, customer, data)["id"]


def retrieve(call: Call) -> Document:
    return public(call, _in_path(call))


def update(call: Call) -> Document:
    session = _in_path(call)
    session["metadata"] = merged_metadata(session["metadata"], call.params.get("metadata", {}))
    call.store.put(session)
    return public(call, session)


def expire(call: Call) -> Document:
    session = _in_path(call)
    if session["status"] != "open":
        raise refused(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of {session['status']}."
        )
    run_out(call, session)
    return public(call, session)


def run_out(call: Call, session: Document) -> None:
    """Nobody can use its page any more."""
    session["status"] = "expired"
    call.store.set_timer(session["id"], None)
    _write(call, session, "checkout.session.expired")


def list_lines(call: Call) -> Document:
    session = _in_path(call)
    return page_of(call, session["_lines"], f"/v1/checkout/sessions/{session['id']}/line_items")


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name, column in (("customer", "customer"), ("status", "label")):
        if name in call.params:
            where.append((f"{column} = ?", call.params[name]))
    if "payment_intent" in call.params:
        where.append(("json_extract(body, '$.payment_intent') = ?", call.params["payment_intent"]))
    found = page(call, "checkout.session", "/v1/checkout/sessions", where)
    found["data"] = [public(call, session) for session in found["data"]]
    return found


def submit(call: Call, session: Document, method: Document) -> None:
    """The customer's press of the button, with a card; the session remembers a refusal."""
    if session["mode"] == "payment":
        refusal = _pay(call, session, method)
    else:
        intent = call.store.find("setup_intent", session["setup_intent"])
        if intent is None:
            raise RuntimeError(f"{session['id']} has lost its setup intent")
        refusal = setup_intents.save_card(call, intent, method)
    session["_failed"] = None if refusal is None else refusal.message
    call.store.put(session)
    complete_if_done(call, session)


def _pay(call: Call, session: Document, method: Document) -> Refusal | None:
    intent = _intent_of(call, session)
    refusal = card_of(method).refusal
    if refusal is not None:
        payment_intents.fail(call, intent, method, refusal)
    elif must_authenticate(method):
        url = f"{call.base_url}/c/pay/{session['id']}"
        payment_intents.ask_customer(call, intent, method, url)
    else:
        own_payment_intents.complete(call, intent, method)
    return refusal


def _intent_of(call: Call, session: Document) -> Document:
    """The payment's intent, made at the first try, and the customer made with it."""
    if session["payment_intent"] is not None:
        intent = call.store.find("payment_intent", session["payment_intent"])
        if intent is None:
            raise RuntimeError(f"{session['id']} has lost its payment intent")
        return intent
    customer = call.store.find("customer", session["customer"] or "")
    if customer is None and session["customer_creation"] == "always":
        customer = customers.make(call, {"email": session["customer_email"]})
        session["customer"] = customer["id"]
    intent = own_payment_intents.draft(call, session["amount_total"], session["currency"], customer)
    for name, value in session["_payment_intent_data"].items():
        intent[name] = merged_metadata({}, value) if name == "metadata" else value
    call.store.insert(intent, created=call.now)
    emit(call, "payment_intent.created", public(call, intent))
    session["payment_intent"] = intent["id"]
    call.store.put(session)
    return intent


def complete_if_done(call: Call, session: Document) -> None:
    """Close the session once its intent has succeeded."""
    kind = "payment_intent" if session["mode"] == "payment" else "setup_intent"
    intent = call.store.find(kind, session[kind] or "")
    if session["status"] != "open" or intent is None or intent["status"] != "succeeded":
        return
    customer = call.store.find("customer", session["customer"] or "") or {}
    session.update(
        customer_details={
            "address": None,
            "business_name": None,
            "email": customer.get("email") or session["customer_email"],
            "individual_name": None,
            "name": customer.get("name"),
            "phone": customer.get("phone"),
            "tax_exempt": customer.get("tax_exempt", "none"),
            "tax_ids": [],
        },
        payment_status="paid" if session["mode"] == "payment" else "no_payment_required",
        status="complete",
    )
    call.store.set_timer(session["id"], None)
    _write(call, session, "checkout.session.completed")


def _in_path(call: Call) -> Document:
    return call.in_path("checkout.session")


def _write(call: Call, session: Document, event_type: str) -> None:
    call.store.put(session)
    emit(call, event_type, public(call, session))
