"""Invoice numbers: one gapless sequence per customer, or one of the account; or the caller's own.

Which sequence is the setting `numbering` of the control door, `customer` at first as at Stripe. A
number the caller gave must be free; that its own numbers have no gaps is then the caller's duty.
"""

from stripe_sandbox import settings
from stripe_sandbox.call import Call
from stripe_sandbox.errors import refused
from stripe_sandbox.store import Document

ACCOUNT_PREFIX = "SANDBOX"


def next_number(call: Call, invoice: Document, customer: Document) -> tuple[str, int]:
    """The number to take now, and the customer's next one after it."""
    sequence = int(customer["next_invoice_sequence"])
    if invoice["number"] is not None:
        require_free(call, invoice["number"])
        return str(invoice["number"]), sequence
    if settings.read(call.store, "numbering") == "account":
        # Counted, not stored: a number is taken in the transaction that shows it.
        taken = call.store.connection.execute(
            "SELECT count(*) FROM object WHERE kind = 'invoice'"
            " AND json_extract(body, '$.number') GLOB ?",
            (f"{ACCOUNT_PREFIX}-*",),
        ).fetchone()[0]
        return f"{ACCOUNT_PREFIX}-{taken + 1:04d}", sequence
    return f"{customer['invoice_prefix']}-{sequence:04d}", sequence + 1


def require_free(call: Call, number: str) -> None:
    """400 when a finalized invoice bears the number."""
    where = [("json_extract(body, '$.number') = ?", number), ("label <> ?", "draft")]
    if call.store.select("invoice", where, limit=1):
        raise refused(f"An invoice with number `{number}` already exists.", param="number")
