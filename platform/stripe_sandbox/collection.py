"""When an open invoice is tried again by itself: `auto_advance` and Stripe's kind of patience.

Only invoices that charge automatically and advance automatically are tried. The first try comes
at once (Stripe may wait up to an hour); failures wait longer each time and then stop for good.
"""

from stripe_sandbox.call import Call
from stripe_sandbox.store import Document

_DAY_S = 86_400
RETRY_AFTER_S = (3 * _DAY_S, 5 * _DAY_S, 7 * _DAY_S)


def schedule_collection(call: Call, invoice: Document) -> None:
    """Set or clear the next automatic attempt; the caller writes the invoice."""
    invoice["next_payment_attempt"] = _next_attempt(invoice, call.now)
    call.store.set_timer(invoice["id"], invoice["next_payment_attempt"])


def _next_attempt(invoice: Document, now: int) -> int | None:
    if invoice["status"] != "open" or not invoice["auto_advance"]:
        return None
    if invoice["collection_method"] != "charge_automatically":
        return None
    failures = int(invoice["attempt_count"])
    if failures == 0:
        return now
    if failures > len(RETRY_AFTER_S):
        return None
    return now + RETRY_AFTER_S[failures - 1]
