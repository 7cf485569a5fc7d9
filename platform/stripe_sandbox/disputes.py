"""Disputes: a card's holder takes the payment back, and the seller answers or gives in.

Card 4000000000000259 pays and is disputed at once. As in Stripe's test mode, submitting the
evidence `winning_evidence` or `losing_evidence` as `uncategorized_text` decides it; other evidence
leaves it under review until the control door decides.

A dispute takes its amount and a fee out of the account's balance; when it is won the amount comes
back, and the fee does not. A charge may be disputed in parts, up to what was not refunded of it. An
inquiry (`warning_*`) takes nothing until it becomes a dispute. The door can hold money and status
apart, as they may be at Stripe: what was won today may be given back tomorrow.
"""

from typing import Any

from stripe_sandbox import account_transactions, charges, ids
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
OVER = (*DECIDED, "warning_closed")
# Where each status leads, by the bank's word. Evidence brings a dispute under review too.
MOVES = {
    "warning_needs_response": ("warning_under_review", "warning_closed", "needs_response"),
    "warning_under_review": ("warning_closed", "needs_response"),
    "warning_closed": ("needs_response",),
    "needs_response": ("under_review", *DECIDED),
    "under_review": DECIDED,
    "lost": ("won",),  # what the bank takes back of its own accord
    "won": (),
}
FEE_MINOR = {"usd": 1500, "eur": 2000, "gbp": 2000, "jpy": 1300, "kwd": 4500}
FEE_ELSEWHERE_MINOR = 1500

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


_ANSWERED = {"needs_response": "under_review", "warning_needs_response": "warning_under_review"}


def open_if_card_says_so(call: Call, charge: Document, method: Document) -> None:
    """The holder of a disputing test card does so as soon as it has paid."""
    if card_of(method).disputes:
        open_over(call, charge)


def open_over(
    call: Call,
    charge: Document,
    reason: str = "fraudulent",
    *,
    amount_minor: int | None = None,
    is_inquiry: bool = False,
    takes_money: bool = True,
) -> Document:
    """Dispute a charge, or `amount_minor` of it; an inquiry only asks."""
    left_minor = _undisputed_minor(call, charge)
    if left_minor <= 0:
        raise refused(f"Nothing of charge {charge['id']} is left to be disputed.")
    if not 0 < (amount_minor or left_minor) <= left_minor:
        raise refused(f"Of charge {charge['id']} {left_minor} is left to be disputed.")
    card = charge["payment_method_details"]["card"]
    dispute: Document = {
        "id": ids.new("du"),
        "object": "dispute",
        "amount": amount_minor or left_minor,
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
        "is_charge_refundable": is_inquiry,
        "livemode": False,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": card["brand"],
                "case_type": "inquiry" if is_inquiry else "chargeback",
                "network": card["network"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if is_inquiry else "needs_response",
    }
    call.store.insert(dispute, created=call.now)
    if not is_inquiry:
        charges.change(call, charge, disputed=True)
    emit(call, "charge.dispute.created", public(call, dispute))
    if takes_money and not is_inquiry:
        withdraw(call, dispute)
    return dispute


def decide(call: Call, dispute: Document, status: str, *, moves_money: bool = True) -> None:
    """The bank's word. `won` gives the money back; an inquiry that becomes a dispute takes it."""
    if status not in MOVES[dispute["status"]]:
        if dispute["status"] in OVER:
            raise refused(f"This dispute is already closed: it was {dispute['status']}.")
        raise refused(f"A dispute does not go from {dispute['status']} to {status}.")
    dispute["status"] = status
    charge = call.store.find("charge", dispute["charge"])
    if status == "needs_response":
        dispute["is_charge_refundable"] = False
        dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
        if charge is not None:
            charges.change(call, charge, disputed=True)
    _write(call, dispute, f"charge.dispute.{'closed' if status in OVER else 'updated'}")
    if moves_money and status == "needs_response":
        withdraw(call, dispute)
    if moves_money and status == "won" and _taken_minor(dispute):
        reinstate(call, dispute)


def withdraw(call: Call, dispute: Document, *, fee_minor: int | None = None) -> None:
    """Take the disputed amount, and a fee."""
    if dispute["balance_transactions"]:
        raise refused("The funds of this dispute were withdrawn already.")
    if fee_minor is None:
        fee_minor = FEE_MINOR.get(dispute["currency"], FEE_ELSEWHERE_MINOR)
    _move(call, dispute, -dispute["amount"], fee_minor)
    _write(call, dispute, "charge.dispute.funds_withdrawn")


def reinstate(
    call: Call, dispute: Document, *, amount_minor: int | None = None, fee_minor: int = 0
) -> None:
    """Give back what was taken, or `amount_minor` of it; a fee below zero is given back too."""
    taken_minor = _taken_minor(dispute)
    if not 0 < (amount_minor or taken_minor) <= taken_minor:
        raise refused(f"Of this dispute's funds {taken_minor} can be reinstated.")
    _move(call, dispute, amount_minor or taken_minor, fee_minor)
    _write(call, dispute, "charge.dispute.funds_reinstated")


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("dispute"))


def update(call: Call) -> Document:
    dispute = call.in_path("dispute")
    if "metadata" in call.params:
        dispute["metadata"] = merged_metadata(dispute["metadata"], call.params["metadata"])
    evidence = call.params.get("evidence")
    if evidence and dispute["status"] not in _ANSWERED:
        raise refused(f"This dispute takes no evidence any more: it is {dispute['status']}.")
    details = dispute["evidence_details"]
    if evidence:
        dispute["evidence"].update(evidence)
        details["has_evidence"] = True
    submitted = details["has_evidence"] and call.params.get("submit", bool(evidence))
    if submitted and dispute["status"] in _ANSWERED:
        details["submission_count"] += 1
        details["submission_method"] = "manual"
        dispute["status"] = _ANSWERED[dispute["status"]]
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
    is_inquiry = dispute["status"].startswith("warning_")
    decide(call, dispute, "warning_closed" if is_inquiry else "lost")
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


def _undisputed_minor(call: Call, charge: Document) -> int:
    """What of a charge was neither refunded nor disputed, but for disputes that it has won."""
    where = [("json_extract(body, '$.charge') = ?", charge["id"])]
    known = call.store.select("dispute", where, limit=10_000)
    disputed = sum(row["amount"] for row in known if row["status"] not in ("won", "warning_closed"))
    return int(charge["amount_captured"] - charge["amount_refunded"] - disputed)


def _taken_minor(dispute: Document) -> int:
    return -int(sum(row["amount"] for row in dispute["balance_transactions"]))


def _move(call: Call, dispute: Document, amount_minor: int, fee_minor: int) -> None:
    row = account_transactions.record(call, dispute, amount_minor, fee_minor)
    dispute["balance_transactions"].append(row)


def _write(call: Call, dispute: Document, event_type: str) -> None:
    call.store.put(dispute)
    emit(call, event_type, public(call, dispute))
