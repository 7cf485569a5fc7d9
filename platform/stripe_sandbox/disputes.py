"""Disputes: a card's holder takes the payment back, and the seller answers or gives in.

Card 4000000000000259 pays and is disputed at once. As in Stripe's test mode, submitting the
evidence `winning_evidence` or `losing_evidence` as `uncategorized_text` decides it; other evidence
leaves it under review until the control door decides. Fees are not simulated.
"""

from typing import Any

from stripe_sandbox import charges, ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import refused
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    Flag,
    Metadata,
    Reference,
    Shape,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.payment_methods import card_of
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

ANSWER_WITHIN_S = 9 * 86_400
MAX_EVIDENCE_CHARS = 20_000
DECIDED = ("won", "lost")

_TEXTS = (
    *("access_activity_log", "billing_address", "cancellation_policy_disclosure"),
    *("cancellation_rebuttal", "customer_email_address", "customer_name"),
    *("customer_purchase_ip", "duplicate_charge_explanation", "duplicate_charge_id"),
    *("product_description", "refund_policy_disclosure", "refund_refusal_explanation"),
    *("service_date", "shipping_address", "shipping_carrier", "shipping_date"),
    *("shipping_tracking_number", "uncategorized_text"),
)
_FILES = (
    *("cancellation_policy", "customer_communication", "customer_signature"),
    *("duplicate_charge_documentation", "receipt", "refund_policy", "service_documentation"),
    *("shipping_documentation", "uncategorized_file"),
)

RETRIEVE = Takes()
UPDATE = Takes(
    {
        "evidence": Shape(dict.fromkeys(_TEXTS, Text(max_chars=MAX_EVIDENCE_CHARS))),
        "metadata": Metadata(),
        "submit": Flag(),
    }
)
CLOSE = Takes()
LIST = Takes(
    {**PAGE, "charge": Reference(), "created": Span(), "payment_intent": Reference()},
)


def open_if_card_says_so(call: Call, charge: Document, method: Document) -> None:
    """The holder of a disputing test card does so as soon as it has paid."""
    if card_of(method).disputes:
        open_over(call, charge)


def open_over(call: Call, charge: Document, reason: str = "fraudulent") -> Document:
    """Take the charge's money back into dispute."""
    if charge["disputed"]:
        raise refused(f"Charge {charge['id']} is disputed already.")
    card = charge["payment_method_details"]["card"]
    dispute: Document = {
        "id": ids.new("du"),
        "object": "dispute",
        "amount": charge["amount"] - charge["amount_refunded"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": call.now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys((*_TEXTS, *_FILES)), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": call.now + ANSWER_WITHIN_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": card["brand"],
                "case_type": "chargeback",
                "network": card["network"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "needs_response",
    }
    call.store.insert(dispute, created=call.now)
    charges.change(call, charge, disputed=True)
    for event_type in ("charge.dispute.created", "charge.dispute.funds_withdrawn"):
        emit(call, event_type, public(call, dispute))
    return dispute


def decide(call: Call, dispute: Document, status: str) -> None:
    """The bank's word: `won` gives the money back, `lost` keeps it away."""
    if dispute["status"] in DECIDED:
        raise refused(f"This dispute is already closed: it was {dispute['status']}.")
    dispute["status"] = status
    _write(call, dispute, "charge.dispute.closed")
    if status == "won":
        emit(call, "charge.dispute.funds_reinstated", public(call, dispute))


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("dispute"))


def update(call: Call) -> Document:
    dispute = call.in_path("dispute")
    if "metadata" in call.params:
        dispute["metadata"] = merged_metadata(dispute["metadata"], call.params["metadata"])
    evidence = call.params.get("evidence")
    if evidence and dispute["status"] != "needs_response":
        raise refused(f"This dispute takes no evidence any more: it is {dispute['status']}.")
    details = dispute["evidence_details"]
    if evidence:
        dispute["evidence"].update(evidence)
        details["has_evidence"] = True
    submitted = details["has_evidence"] and call.params.get("submit", bool(evidence))
    if submitted and dispute["status"] == "needs_response":
        details["submission_count"] += 1
        details["submission_method"] = "manual"
        dispute["status"] = "under_review"
    _write(call, dispute, "charge.dispute.updated")
    verdict = {"winning_evidence": "won", "losing_evidence": "lost"}.get(
        dispute["evidence"]["uncategorized_text"] or ""
    )
    if dispute["status"] == "under_review" and verdict is not None:
        decide(call, dispute, verdict)
    return public(call, dispute)


def close(call: Call) -> Document:
    """Give in; it cannot be taken back."""
    dispute = call.in_path("dispute")
    decide(call, dispute, "lost")
    return public(call, dispute)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("charge", "payment_intent"):
        if name in call.params:
            # The name is one of the two literals above; the value is bound.
            where.append((f"json_extract(body, '$.{name}') = ?", call.params[name]))
    found = page(call, "dispute", "/v1/disputes", where)
    found["data"] = [public(call, dispute) for dispute in found["data"]]
    return found


def _write(call: Call, dispute: Document, event_type: str) -> None:
    call.store.put(dispute)
    emit(call, event_type, public(call, dispute))
