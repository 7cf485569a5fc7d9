"""Payment methods: test cards, their owners, and the magic ids that stand for fresh ones.

Every use of a magic id (`pm_card_visa`) makes a new payment method, as at Stripe. Full numbers
are never stored; the card's behaviour is found again by its number's key.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.cards import BY_MAGIC_ID, BY_NUMBER, Refusal, TestCard
from stripe_sandbox.errors import StripeError, missing_parameter, no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, page
from stripe_sandbox.params import (
    ADDRESS,
    Choice,
    Integer,
    Metadata,
    Reference,
    Shape,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

_EMPTY_ADDRESS = dict.fromkeys(ADDRESS.fields)
_CARD_ONLY = Choice(("card",))
_PREVIEW = Choice(("always", "limited", "unspecified"))

CREATE = Takes(
    {
        "type": _CARD_ONLY,
        "card": Shape(
            {
                "number": Text(max_chars=19, keeps=True),
                "exp_month": Integer(1, 12),
                "exp_year": Integer(2000, 2100),
                "cvc": Text(max_chars=4),
            }
        ),
        "billing_details": Shape(
            {"name": Text(), "email": Text(), "phone": Text(), "address": ADDRESS}
        ),
        "metadata": Metadata(),
        "allow_redisplay": _PREVIEW,
    },
    required=("type", "card"),
)
UPDATE = Takes(
    {
        "allow_redisplay": _PREVIEW,
        "billing_details": Shape(
            {"name": Text(), "email": Text(), "phone": Text(), "address": ADDRESS}
        ),
        "card": Shape({"exp_month": Integer(1, 12), "exp_year": Integer(2000, 2100)}),
        "metadata": Metadata(),
    }
)
RETRIEVE = Takes()
LIST = Takes({**PAGE, "customer": Reference(), "type": _CARD_ONLY})
LIST_OF_CUSTOMER = Takes({**PAGE, "type": _CARD_ONLY})
ATTACH = Takes({"customer": Reference()}, required=("customer",))
DETACH = Takes()


def make_card(call: Call, card: TestCard, *, exp_month: int = 12, exp_year: int = 0) -> Document:
    """A stored, unattached payment method for a test card."""
    method: Document = {
        "id": ids.new("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict(_EMPTY_ADDRESS),
            "email": None,
            "name": None,
            "phone": None,
            "tax_id": None,
        },
        "card": {
            "brand": card.brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "pass",
            },
            "country": "US",
            "display_brand": card.brand,
            "exp_month": exp_month,
            "exp_year": exp_year or _next_year(call.now),
            "fingerprint": f"sandbox{card.number[-8:]}",
            "funding": "credit",
            "generated_from": None,
            "last4": card.number[-4:],
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": call.now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
        "_number": card.number,
    }
    call.store.insert(method, created=call.now)
    return method


def _next_year(now: int) -> int:
    return 1971 + now // 31_556_952  # mean Gregorian year; a card's expiry needs no more


def create(call: Call) -> Document:
    fields = call.params["card"]
    for name in ("number", "exp_month", "exp_year"):
        if name not in fields:
            raise missing_parameter(f"card[{name}]")
    card = BY_NUMBER.get(fields["number"].replace(" ", ""))
    if card is None:
        raise StripeError(
            402,
            "Your card number is not a test card of this sandbox. Never enter a real card here.",
            kind="card_error",
            code="incorrect_number",
            param="number",
        )
    method = make_card(call, card, exp_month=fields["exp_month"], exp_year=fields["exp_year"])
    _bill_to(method, call.params.get("billing_details") or {})
    method["metadata"] = merged_metadata({}, call.params.get("metadata", {}))
    method["allow_redisplay"] = call.params.get("allow_redisplay", "unspecified")
    call.store.put(method)
    return public(call, method)


def retrieve(call: Call) -> Document:
    return public(call, resolve(call, call.path["id"], in_path=True))


def update(call: Call) -> Document:
    """The number never changes; who it is billed to and when it expires may."""
    method = call.in_path("payment_method")
    if method["customer"] is None:
        raise refused("You must save this PaymentMethod to a customer before you can update it.")
    before = public(call, method)
    _bill_to(method, call.params.get("billing_details") or {})
    method["card"].update(call.params.get("card") or {})
    if "metadata" in call.params:
        method["metadata"] = merged_metadata(method["metadata"], call.params["metadata"])
    if "allow_redisplay" in call.params:
        method["allow_redisplay"] = call.params["allow_redisplay"]
    call.store.put(method)
    emit_change(call, "payment_method.updated", before, public(call, method))
    return public(call, method)


def _bill_to(method: Document, details: Mapping[str, Any]) -> None:
    method["billing_details"].update({k: v for k, v in details.items() if k != "address"})
    method["billing_details"]["address"].update(details.get("address") or {})


def resolve(
    call: Call, method_id: str, param: str = "payment_method", *, in_path: bool = False
) -> Document:
    """A stored payment method, or a fresh one for a magic id."""
    card = BY_MAGIC_ID.get(method_id)
    if card is not None:
        return make_card(call, card)
    found = call.store.find("payment_method", method_id)
    if found is None:
        raise no_such("payment_method", method_id, param, in_path=in_path)
    return found


def list_all(call: Call) -> Document:
    """Without a customer: the attached ones of everybody, as the sandbox has one account."""
    return _listed(call, call.params.get("customer"), "/v1/payment_methods")


def list_of_customer(call: Call) -> Document:
    customer = call.in_path("customer")
    return _listed(call, customer["id"], f"/v1/customers/{customer['id']}/payment_methods")


def _listed(call: Call, customer_id: str | None, url: str) -> Document:
    where = [("customer = ?", customer_id)] if customer_id else [("customer > ?", "")]
    found = page(call, "payment_method", url, where)
    found["data"] = [public(call, method) for method in found["data"]]
    return found


def attach(call: Call) -> Document:
    customer = call.named("customer", "customer")
    if customer is None:
        raise missing_parameter("customer")
    method = resolve(call, call.path["id"], in_path=True)
    return public(call, attach_to(call, method, customer))


def attach_to(call: Call, method: Document, customer: Document) -> Document:
    """Give a payment method its owner; 402 for cards that no issuer would let be saved."""
    if method["customer"] is not None:
        raise refused("The payment method you provided has already been attached to a customer.")
    if method.get("_spent"):
        raise refused("This PaymentMethod was detached from a Customer and may not be used again.")
    card = card_of(method)
    if card.refusal is not None and card.unattachable:
        raise declined(card.refusal)
    method["customer"] = customer["id"]
    call.store.put(method)
    emit(call, "payment_method.attached", public(call, method))
    return method


def detach(call: Call) -> Document:
    method = call.in_path("payment_method")
    if method["customer"] is None:
        raise refused(
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible."
        )
    return public(call, detach_from(call, method))


def detach_from(call: Call, method: Document) -> Document:
    """Take the owner away; it also stops being that owner's default."""
    before = public(call, method)
    customer = call.store.find("customer", method["customer"])
    if customer and customer["invoice_settings"]["default_payment_method"] == method["id"]:
        customer["invoice_settings"]["default_payment_method"] = None
        call.store.put(customer)
    method["customer"] = None
    method["_spent"] = True
    call.store.put(method)
    emit(
        call,
        "payment_method.detached",
        public(call, method),
        {"customer": before["customer"]},
    )
    return method


def card_of(method: Document) -> TestCard:
    """How this payment method behaves."""
    return BY_NUMBER[method["_number"]]


def must_authenticate(method: Document) -> bool:
    """True when the issuer wants to see the holder before it lets this card pay."""
    card = card_of(method)
    already = card.authenticates_once and method.get("_authenticated", False)
    return card.authenticates and not already


def declined(refusal: Refusal, **fields: Document | str) -> StripeError:
    """402 with the issuer's reason."""
    return StripeError(
        402,
        refusal.message,
        kind="card_error",
        code=refusal.code,
        fields={"decline_code": refusal.decline_code, **fields},
    )
