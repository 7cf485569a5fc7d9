"""Which moves an invoice's status allows, as one table, and the guard that reads it.

From Stripe's page on status transitions: drafts are deleted or finalized, finalized ones are paid,
voided or given up; given-up ones can still be paid or voided; paid and void are the end.
"""

from stripe_sandbox.errors import StripeError, refused
from stripe_sandbox.store import Document

MOVES: dict[str, frozenset[str]] = {
    "edit_lines": frozenset({"draft"}),
    "edit": frozenset({"draft"}),
    "delete": frozenset({"draft"}),
    "finalize": frozenset({"draft"}),
    "pay": frozenset({"open", "uncollectible"}),
    "void": frozenset({"open", "uncollectible"}),
    "mark_uncollectible": frozenset({"open"}),
}

_WORDS = {
    "edit_lines": "This invoice is no longer editable: lines can be added to a draft only.",
    "edit": "Finalized invoices can't be updated in this way.",
    "delete": "You can only delete draft invoices.",
    "finalize": "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
    "pay": "You can only pay an open or uncollectible invoice. This invoice is {status}.",
    "void": "You can only pass in open or uncollectible invoices. This invoice is {status}.",
    "mark_uncollectible": "You can only pass in open invoices. This invoice is {status}.",
}


def require(invoice: Document, move: str) -> None:
    """400 unless the invoice's status allows the move."""
    status = invoice["status"]
    if status in MOVES[move]:
        return
    message = _WORDS[move].format(status=status)
    if move == "pay" and status == "paid":
        message = "Invoice is already paid"
    raise not_editable(message) if move.startswith("edit") else refused(message)


def not_editable(message: str) -> StripeError:
    """400 `invoice_not_editable`."""
    return refused(message, code="invoice_not_editable")
