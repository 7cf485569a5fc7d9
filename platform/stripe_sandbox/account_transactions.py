"""What moves the account's own balance, as Stripe's balance transactions.

Only disputes do here: what they take away, what they give back, and their fees. Charges, refunds
and payouts make none, as fees of payments and payouts are not simulated.
"""

from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import Currency, Reference, Span, Takes, Text
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

_KIND = "balance_transaction"

RETRIEVE = Takes()
LIST = Takes(
    {**PAGE, "created": Span(), "currency": Currency(), "source": Reference(), "type": Text()}
)


def record(call: Call, dispute: Document, amount_minor: int, fee_minor: int) -> Document:
    """What a dispute has moved: below zero, money left the account."""
    row: Document = {
        "id": ids.new("txn"),
        "object": _KIND,
        "amount": amount_minor,
        "available_on": call.now,
        "balance_type": "payments",
        "created": call.now,
        "currency": dispute["currency"],
        "description": f"Chargeback {'withdrawal' if amount_minor < 0 else 'reversal'} for"
        f" {dispute['charge']}",
        "exchange_rate": None,
        "fee": fee_minor,
        "fee_details": [_fee(dispute["currency"], fee_minor)] if fee_minor else [],
        "net": amount_minor - fee_minor,
        "reporting_category": "dispute" if amount_minor < 0 else "dispute_reversal",
        "source": dispute["id"],
        "status": "available",
        "type": "adjustment",
    }
    call.store.insert(row, created=call.now)
    return row


def retrieve(call: Call) -> Document:
    return public(call, call.in_path(_KIND))


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("currency", "source", "type"):
        if name in call.params:
            # The name is one of the three literals above; the value is bound.
            where.append((f"json_extract(body, '$.{name}') = ?", call.params[name]))
    found = page(call, _KIND, "/v1/balance_transactions", where)
    found["data"] = [public(call, row) for row in found["data"]]
    return found


def _fee(currency: str, amount_minor: int) -> Document:
    return {
        "amount": amount_minor,
        "application": None,
        "currency": currency,
        "description": "Dispute fee",
        "type": "stripe_fee",
    }
