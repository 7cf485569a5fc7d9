"""What a credit note comes to: its lines, its taxes, how much of it meets what is still owed.

A line of the invoice is credited up to what is left of it, and takes its taxes along in
proportion, each rounded once (`rounding`). A note first lowers what remains to be paid
(`pre_payment_amount`); the rest was paid already and must go somewhere: back to the card, to the
customer's balance, or out of band. A note of a bare `amount` has one line of its own and no tax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, no_such, refused
from stripe_sandbox.params import merged_metadata
from stripe_sandbox.rounding import quotient
from stripe_sandbox.store import Document
from stripe_sandbox.taxes import amount_of, summed

MAX_NOTES_READ = 1_000


@dataclass(frozen=True, slots=True)
class Amounts:
    """A note in figures; `total == pre_payment + post_payment`."""

    lines: list[Document]
    subtotal: int
    total: int
    taxes: list[Document]
    pre_payment: int
    post_payment: int

    @property
    def tax(self) -> int:
        """All taxes, the inclusive ones too."""
        return sum(tax["amount"] for tax in self.taxes)

    @property
    def kind(self) -> str:
        """Stripe's `type`."""
        if self.pre_payment and self.post_payment:
            return "mixed"
        return "post_payment" if self.post_payment else "pre_payment"


def of_request(call: Call, invoice: Document, creditable_minor: int) -> Amounts:
    """The figures a request asks for; 400 when the invoice has less left to credit."""
    params = call.params
    if ("amount" in params) == bool(params.get("lines")):
        raise refused(
            "You must pass exactly one of `amount` and `lines`."
            if "amount" in params
            else "You must pass one of `amount`, `lines` or `shipping_cost`.",
            param="amount",
        )
    asked = params.get("lines") or [
        {
            "type": "custom_line_item",
            "description": "Credit",
            "quantity": 1,
            "unit_amount": params["amount"],
        }
    ]
    already = _credited_per_line(call, invoice)
    lines = [
        _line(call, invoice, fields, f"lines[{place}]", already)
        for place, fields in enumerate(asked)
    ]
    subtotal = sum(line["amount"] for line in lines)
    taxes = summed(tax for line in lines for tax in line["taxes"])
    total = subtotal + amount_of(taxes, "exclusive")
    if total <= 0:
        raise refused("The credit note's total must be positive.", param="lines")
    if total > creditable_minor:
        raise refused(
            f"The credit note total ({total}) exceeds the amount that can still be credited on "
            f"this invoice ({creditable_minor}).",
            param="lines" if params.get("lines") else "amount",
        )
    pre_payment = min(total, invoice["amount_remaining"])
    return Amounts(lines, subtotal, total, taxes, pre_payment, total - pre_payment)


def _line(
    call: Call,
    invoice: Document,
    fields: Mapping[str, Any],
    name: str,
    already: dict[str, int],
) -> Document:
    if fields["type"] == "custom_line_item":
        return _custom(call, fields, name)
    line_id = fields.get("invoice_line_item")
    if line_id is None:
        raise missing_parameter(f"{name}[invoice_line_item]")
    source = call.store.find("line_item", line_id)
    if source is None or source["invoice"] != invoice["id"]:
        raise no_such("line_item", line_id, f"{name}[invoice_line_item]", in_path=False)
    quantity = fields.get("quantity")
    if (quantity is None) == ("amount" not in fields):
        raise refused(
            "Pass exactly one of `amount` and `quantity` for an invoice line item.",
            param=f"{name}[amount]",
        )
    if quantity is None:
        amount = fields["amount"]
    else:
        amount = quotient(source["amount"] * quantity, source["quantity"] or 1)
    left = source["amount"] - already.get(line_id, 0)
    if not (0 < amount <= left or left <= amount < 0):
        raise refused(
            f"The amount to credit ({amount}) must not exceed what is left of the invoice line "
            f"item ({left}).",
            param=f"{name}[{'amount' if quantity is None else 'quantity'}]",
        )
    already[line_id] = already.get(line_id, 0) + amount
    taxes = [
        {
            **tax,
            "amount": quotient(tax["amount"] * amount, source["amount"]),
            "taxable_amount": quotient(tax["taxable_amount"] * amount, source["amount"]),
        }
        for tax in source["taxes"]
    ]
    return {
        **_blank_line(amount, fields.get("description") or source["description"], fields),
        "invoice_line_item": line_id,
        "quantity": quantity,
        "taxes": taxes,
        "type": "invoice_line_item",
        "unit_amount": None if quantity is None else quotient(amount, quantity),
        "unit_amount_decimal": None if quantity is None else str(quotient(amount, quantity)),
    }


def _custom(call: Call, fields: Mapping[str, Any], name: str) -> Document:
    for needed in ("description", "quantity", "unit_amount"):
        if fields.get(needed) is None:
            raise missing_parameter(f"{name}[{needed}]")
    amount = fields["quantity"] * fields["unit_amount"]
    return {
        **_blank_line(amount, fields["description"], fields),
        "quantity": fields["quantity"],
        "taxes": [],
        "type": "custom_line_item",
        "unit_amount": fields["unit_amount"],
        "unit_amount_decimal": str(fields["unit_amount"]),
    }


def _blank_line(amount: int, description: str | None, fields: Mapping[str, Any]) -> Document:
    return {
        "id": ids.new("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": description,
        "discount_amount": 0,
        "discount_amounts": [],
        "livemode": False,
        "metadata": merged_metadata({}, fields.get("metadata", {})),
        "pretax_credit_amounts": [],
        "tax_rates": [],
    }


def _credited_per_line(call: Call, invoice: Document) -> dict[str, int]:
    credited: dict[str, int] = {}
    for note in notes_of(call, invoice):
        if note["status"] == "void":
            continue
        for line in note["_lines"]:
            source = line.get("invoice_line_item")
            if source is not None:
                credited[source] = credited.get(source, 0) + line["amount"]
    return credited


def notes_of(call: Call, invoice: Document) -> list[Document]:
    """Every credit note of an invoice, newest first."""
    where = [("invoice = ?", invoice["id"])]
    return call.store.select("credit_note", where, limit=MAX_NOTES_READ)
