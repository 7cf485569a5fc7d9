"""The outer form of a stored document: what Stripe would show, and nothing of ours.

Members that begin with an underscore stay inside. An invoice is completed on the way out: its
page's address, the first page of its lines, and, while it is a draft, its customer's name and
balance of this moment.
"""

import copy

from stripe_sandbox.call import Call
from stripe_sandbox.lists import listed
from stripe_sandbox.store import Document

EMBEDDED_LINES = 10  # Stripe embeds the first page only; the rest must be listed


def public(call: Call, document: Document) -> Document:
    """A copy fit for an answer or an event."""
    # Deep: a snapshot must not change when the stored document does.
    shown = {k: copy.deepcopy(v) for k, v in document.items() if not k.startswith("_")}
    if document["object"] == "invoice":
        _complete_invoice(call, document, shown)
    elif document["object"] == "checkout.session" and document["status"] == "open":
        shown["url"] = f"{call.base_url}/c/pay/{document['id']}"
    elif document["object"] == "charge":
        shown["receipt_url"] = f"{call.base_url}/receipts/acct_sandbox/{document['_receipt_token']}"
    elif document["object"] == "credit_note":
        token = document["_page_token"]
        shown["pdf"] = f"{call.base_url}/credit_notes/acct_sandbox/{token}/pdf"
        shown["lines"] = _embedded(document["_lines"], f"/v1/credit_notes/{document['id']}/lines")
    return shown


def _embedded(rows: list[Document], url: str) -> Document:
    """The first page of rows that lie inside the document itself."""
    return listed(copy.deepcopy(rows[:EMBEDDED_LINES]), url, has_more=len(rows) > EMBEDDED_LINES)


def _complete_invoice(call: Call, document: Document, shown: Document) -> None:
    if document["status"] == "draft":
        customer = call.store.find("customer", document["customer"], deleted=True)
        if customer is not None and not customer.get("deleted"):
            shown.update(
                customer_address=customer["address"],
                customer_email=customer["email"],
                customer_name=customer["name"],
                customer_phone=customer["phone"],
                customer_shipping=customer["shipping"],
                customer_tax_exempt=customer["tax_exempt"],
                starting_balance=customer["balance"],
            )
    if document["_page_token"] is not None:
        shown["hosted_invoice_url"] = f"{call.base_url}/i/acct_sandbox/{document['_page_token']}"
        shown["invoice_pdf"] = f"{shown['hosted_invoice_url']}/pdf"
    shown["lines"] = lines_of(call, document["id"], EMBEDDED_LINES)


def lines_of(call: Call, invoice_id: str, limit: int) -> Document:
    """The first lines of an invoice as a list object, in the order they were added."""
    rows = call.store.select(
        "line_item", [("invoice = ?", invoice_id)], ascending=True, limit=limit + 1
    )
    return listed(
        [public(call, row) for row in rows[:limit]],
        f"/v1/invoices/{invoice_id}/lines",
        has_more=len(rows) > limit,
    )
