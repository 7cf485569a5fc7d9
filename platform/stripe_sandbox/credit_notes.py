"""Credit notes: a finalized invoice made smaller, with the money behind it put right.

Made, with its refund or balance credit and the invoice's new amounts, in one transaction. What can
be credited is the invoice's total, less what other notes credited and less refunds that no note
stands for. A note that meets only what is still owed can be voided while the invoice is open.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import balance_transactions, charges, ids, payment_intents, refunds
from stripe_sandbox.call import Call
from stripe_sandbox.credit_note_amounts import Amounts, notes_of, of_request
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.invoice_states import become_paid, cancel_payment_for_cash
from stripe_sandbox.invoices import save
from stripe_sandbox.lists import PAGE, created_in, page, page_of
from stripe_sandbox.params import (
    INSTANT,
    MAX_AMOUNT_MINOR,
    Choice,
    Integer,
    Metadata,
    Parameter,
    Reference,
    Rows,
    Shape,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document
from stripe_sandbox.taxes import amount_of

CREDITABLE = ("open", "paid", "uncollectible")
MAX_LINES = 250
MAX_REFUNDS = 100

_AMOUNT = Integer(0, MAX_AMOUNT_MINOR)
_ASKED: Mapping[str, Parameter] = {
    "amount": Integer(1, MAX_AMOUNT_MINOR),
    "credit_amount": _AMOUNT,
    "effective_at": INSTANT,
    "email_type": Choice(("credit_note", "none")),
    "invoice": Reference(),
    "lines": Rows(
        Shape(
            {
                "amount": Integer(),
                "description": Text(max_chars=500),
                "invoice_line_item": Reference(),
                "metadata": Metadata(),
                "quantity": Integer(1, MAX_AMOUNT_MINOR),
                "type": Choice(("custom_line_item", "invoice_line_item")),
                "unit_amount": Integer(),
            },
            required=("type",),
        ),
        max_rows=MAX_LINES,
    ),
    "memo": Text(),
    "metadata": Metadata(),
    "out_of_band_amount": _AMOUNT,
    "reason": Choice(("duplicate", "fraudulent", "order_change", "product_unsatisfactory")),
    "refund_amount": _AMOUNT,
    "refunds": Rows(
        Shape(
            {"amount_refunded": _AMOUNT, "refund": Reference(), "type": Choice(("refund",))},
            required=("refund",),
        ),
        max_rows=MAX_REFUNDS,
    ),
}

CREATE = Takes(_ASKED, required=("invoice",))
PREVIEW = Takes(_ASKED, required=("invoice",))
PREVIEW_LINES = Takes({**_ASKED, **PAGE}, required=("invoice",))
RETRIEVE = Takes()
UPDATE = Takes({"memo": Text(), "metadata": Metadata()})
VOID = Takes()
LIST_LINES = Takes(PAGE)
LIST = Takes(
    {**PAGE, "created": Span(), "customer": Reference(), "invoice": Reference()},
)


def create(call: Call) -> Document:
    invoice, note, amounts, linked = _drawn(call)
    before = public(call, invoice)
    call.store.insert(note, created=call.now)
    for refund, linked_minor in linked:
        refund["_credited"] += linked_minor
        call.store.put(refund)
        note["refunds"].append(_refund_row(refund["id"], linked_minor))
    if call.params.get("refund_amount"):
        charge = _charge_of(call, invoice)
        given = call.params["refund_amount"]
        refund = refunds.give_back(call, charge, given, credited_minor=given)
        note["refunds"].append(_refund_row(refund["id"], given))
    if call.params.get("credit_amount"):
        _credit_balance(call, invoice, note, call.params["credit_amount"])
    call.store.put(note)
    emit(call, "credit_note.created", public(call, note))
    _lower(call, invoice, amounts, before)
    return public(call, note)


def preview(call: Call) -> Document:
    """The note as it would be, with nothing written."""
    _, note, _, linked = _drawn(call)
    note["refunds"] = [_refund_row(refund["id"], minor) for refund, minor in linked]
    return public(call, note)


def preview_lines(call: Call) -> Document:
    _, note, _, _ = _drawn(call)
    return page_of(call, note["_lines"], "/v1/credit_notes/preview/lines")


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("credit_note"))


def update(call: Call) -> Document:
    note = call.in_path("credit_note")
    before = public(call, note)
    if "memo" in call.params:
        note["memo"] = call.params["memo"]
    if "metadata" in call.params:
        note["metadata"] = merged_metadata(note["metadata"], call.params["metadata"])
    call.store.put(note)
    emit_change(call, "credit_note.updated", before, public(call, note))
    return public(call, note)


def void(call: Call) -> Document:
    """Take a note back that only lowered what is owed on an invoice that is still open."""
    note = call.in_path("credit_note")
    invoice = call.store.find("invoice", note["invoice"])
    if note["status"] == "void":
        raise refused("This credit note is already void.")
    if invoice is None or invoice["status"] != "open" or note["type"] != "pre_payment":
        raise refused("You can only void a credit note while its invoice is open and unpaid.")
    before = public(call, invoice)
    note.update(status="void", voided_at=call.now)
    call.store.put(note)
    emit(call, "credit_note.voided", public(call, note))
    amount = note["pre_payment_amount"]
    invoice["pre_payment_credit_notes_amount"] -= amount
    invoice["amount_due"] += amount
    invoice["amount_remaining"] += amount
    payment_intents.resize(call, invoice)
    save(call, invoice, before)
    return public(call, note)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("customer", "invoice"):
        if name in call.params:
            where.append((f"{name} = ?", call.params[name]))
    found = page(call, "credit_note", "/v1/credit_notes", where)
    found["data"] = [public(call, note) for note in found["data"]]
    return found


def list_lines(call: Call) -> Document:
    note = call.in_path("credit_note")
    return page_of(call, note["_lines"], f"/v1/credit_notes/{note['id']}/lines")


def _drawn(call: Call) -> tuple[Document, Document, Amounts, list[tuple[Document, int]]]:
    """The invoice, the note as a document, its figures, and the refunds it takes over."""
    invoice = call.named("invoice", "invoice")
    if invoice is None:
        raise missing_parameter("invoice")
    if invoice["status"] not in CREDITABLE:
        raise refused(
            "Credit notes can be issued for open, paid and uncollectible invoices only. This "
            f"invoice is {invoice['status']}.",
            param="invoice",
        )
    linked = _linked_refunds(call, invoice)
    taken_over = sum(minor for _, minor in linked)
    amounts = of_request(call, invoice, _creditable(call, invoice) + taken_over)
    given = taken_over + sum(
        call.params.get(name, 0)
        for name in ("refund_amount", "credit_amount", "out_of_band_amount")
    )
    if given != amounts.post_payment:
        raise refused(
            f"The sum of credit amount, refund amount and out of band amount ({given}) must equal "
            f"the post payment credit note amount ({amounts.post_payment})."
        )
    number = f"{invoice['number']}-CN-{len(notes_of(call, invoice)) + 1:02d}"
    return invoice, _document(call, invoice, number, amounts), amounts, linked


def _creditable(call: Call, invoice: Document) -> int:
    charge = charges.of_intent(call, payment_intents.of_invoice(call, invoice))
    direct = 0
    if charge is not None:
        direct = sum(
            each["amount"] - each["_credited"] for each in refunds.of_charge(call, charge["id"])
        )
    noted = invoice["pre_payment_credit_notes_amount"] + invoice["post_payment_credit_notes_amount"]
    return int(invoice["total"] - noted - direct)


def _linked_refunds(call: Call, invoice: Document) -> list[tuple[Document, int]]:
    linked: list[tuple[Document, int]] = []
    for place, row in enumerate(call.params.get("refunds") or ()):
        name = f"refunds[{place}][refund]"
        refund = call.store.find("refund", row["refund"])
        if refund is None:
            raise no_such("refund", row["refund"], name, in_path=False)
        charge = charges.of_intent(call, payment_intents.of_invoice(call, invoice))
        if charge is None or refund["charge"] != charge["id"]:
            raise refused(f"The refund {refund['id']} is not of this invoice.", param=name)
        taken = sum(minor for each, minor in linked if each["id"] == refund["id"])
        left = refund["amount"] - refund["_credited"] - taken
        minor = row.get("amount_refunded", left)
        if not 0 < minor <= left:
            raise refused(
                f"{minor} of the refund {refund['id']} cannot be credited: {left} is left of it.",
                param=name,
            )
        if taken:
            raise refused(f"The refund {refund['id']} is named twice.", param=name)
        linked.append((refund, minor))
    return linked


def _document(call: Call, invoice: Document, number: str, amounts: Amounts) -> Document:
    return {
        "id": ids.new("cn"),
        "object": "credit_note",
        "amount": amounts.total,
        "amount_shipping": 0,
        "created": call.now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": call.params.get("effective_at", call.now),
        "invoice": invoice["id"],
        "livemode": False,
        "memo": call.params.get("memo"),
        "metadata": merged_metadata({}, call.params.get("metadata", {})),
        "number": number,
        "out_of_band_amount": call.params.get("out_of_band_amount"),
        "post_payment_amount": amounts.post_payment,
        "pre_payment_amount": amounts.pre_payment,
        "pretax_credit_amounts": [],
        "reason": call.params.get("reason"),
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": amounts.subtotal,
        "subtotal_excluding_tax": amounts.subtotal - amount_of(amounts.taxes, "inclusive"),
        "total": amounts.total,
        "total_excluding_tax": amounts.total - amounts.tax,
        "total_taxes": amounts.taxes,
        "type": amounts.kind,
        "voided_at": None,
        "_lines": amounts.lines,
        "_page_token": ids.secret("test"),
    }


def _refund_row(refund_id: str, minor: int) -> Document:
    return {
        "amount_refunded": minor,
        "payment_record_refund": None,
        "refund": refund_id,
        "type": "refund",
    }


def _charge_of(call: Call, invoice: Document) -> Document:
    charge = charges.of_intent(call, payment_intents.of_invoice(call, invoice))
    if charge is None:
        raise refused(
            "This invoice was not paid with a charge that could be refunded.",
            param="refund_amount",
        )
    return charge


def _credit_balance(call: Call, invoice: Document, note: Document, minor: int) -> None:
    customer = call.store.find("customer", invoice["customer"])
    if customer is None:
        raise no_such("customer", invoice["customer"], "customer", in_path=False)
    before = public(call, customer)
    customer["balance"] -= minor
    call.store.put(customer)
    about = {"credit_note": note["id"], "invoice": invoice["id"]}
    row = balance_transactions.record(
        call, customer, -minor, "credit_note", currency=invoice["currency"], **about
    )
    note["customer_balance_transaction"] = row["id"]
    emit_change(call, "customer.updated", before, public(call, customer))


def _lower(call: Call, invoice: Document, amounts: Amounts, before: Document) -> None:
    """The invoice after the note: less is owed; nothing left to pay is paid."""
    invoice["pre_payment_credit_notes_amount"] += amounts.pre_payment
    invoice["post_payment_credit_notes_amount"] += amounts.post_payment
    invoice["amount_due"] -= amounts.pre_payment
    invoice["amount_remaining"] -= amounts.pre_payment
    settles = invoice["status"] != "paid" and invoice["amount_remaining"] == 0
    if not settles:
        if amounts.pre_payment:
            payment_intents.resize(call, invoice)
        save(call, invoice, before)
        return
    save(call, invoice, before)
    cancel_payment_for_cash(call, invoice)
    become_paid(call, invoice, "invoice.paid", "invoice.payment_succeeded")
