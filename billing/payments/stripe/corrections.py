"""Credit notes and refunds at Stripe, each found again by its metadata."""

from collections.abc import Mapping
from typing import Any

from billing.payments.correction_port import (
    NoteOrder,
    Parameters,
    ProviderCharge,
    ProviderNote,
    ProviderRefund,
    RefundOrder,
)
from billing.payments.provider import SendKind
from billing.payments.stripe.client import LIST_PAGE, Client, Send, translated

# Ours in Stripe's words, where it has some; ours stands in the metadata in any case.
_REASONS = {"service_failure": "product_unsatisfactory", "duplicate": "duplicate"}
# What becomes of a refund: one that waits for the customer or the bank is under way.
_STATES = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}


class Corrections(Client):
    """The port's acts on credit notes and refunds."""

    def credit_note_parameters(self, order: NoteOrder) -> Parameters:
        """Integer amounts; no e-mail but ours. What is zero is not sent."""
        said = {"reason": _REASONS[order.reason]} if order.reason in _REASONS else {}
        settled = {
            "refund_amount": order.refund_minor,
            "out_of_band_amount": order.outside_minor,
        }
        return {
            "invoice": order.provider_invoice_id,
            "memo": order.memo or f"Credit note {order.number}",
            "email_type": "none",
            "lines": [
                {
                    "type": "invoice_line_item",
                    "invoice_line_item": line.line_id,
                    "amount": line.amount_minor,
                }
                if line.line_id
                else {
                    "type": "custom_line_item",
                    "description": line.description,
                    "quantity": 1,
                    "unit_amount": line.amount_minor,
                }
                for line in order.lines
            ],
            "metadata": {
                "meterplane_credit_note": str(order.note_id),
                "meterplane_number": order.number,
                "meterplane_reason": order.reason,
            },
            **said,
            **{name: amount for name, amount in settled.items() if amount},
        }

    def refund_parameters(self, order: RefundOrder) -> Parameters:
        return {
            "payment_intent": order.payment_intent_id,
            "amount": order.amount_minor,
            "metadata": {
                "meterplane_refund": str(order.refund_id),
                "meterplane_reason": order.reason,
            },
        }

    def credit_notes(self, provider_invoice_id: str) -> list[ProviderNote]:
        with translated():
            page = self._client.v1.credit_notes.list(
                {"invoice": provider_invoice_id, "limit": LIST_PAGE}
            )
            return [_note(note.to_dict(for_json=True)) for note in page.auto_paging_iter()]

    def charge_of(self, provider_invoice_id: str) -> ProviderCharge | None:
        with translated():
            page = self._client.v1.invoice_payments.list(
                {"invoice": provider_invoice_id, "status": "paid", "limit": LIST_PAGE}
            )
            for paid in page.auto_paging_iter():
                intent_id = _id((paid.to_dict(for_json=True)["payment"]).get("payment_intent"))
                if not intent_id:
                    continue  # paid out of band
                intent = self._client.v1.payment_intents.retrieve(
                    intent_id, {"expand": ["latest_charge"]}
                ).to_dict(for_json=True)
                charge = intent.get("latest_charge")
                if charge and charge["paid"]:
                    left = int(charge["amount_captured"]) - int(charge["amount_refunded"])
                    return ProviderCharge(
                        charge_id=str(charge["id"]),
                        payment_intent_id=intent_id,
                        amount_minor=int(charge["amount_captured"]),
                        refundable_minor=0 if charge["disputed"] else left,
                    )
        return None

    def refunds(self, payment_intent_id: str) -> list[ProviderRefund]:
        with translated():
            page = self._client.v1.refunds.list(
                {"payment_intent": payment_intent_id, "limit": LIST_PAGE}
            )
            return [_refund(refund.to_dict(for_json=True)) for refund in page.auto_paging_iter()]

    def invoice_of_payment(self, payment_intent_id: str) -> str | None:
        with translated():
            page = self._client.v1.invoice_payments.list(
                {
                    "payment": {"type": "payment_intent", "payment_intent": payment_intent_id},
                    "limit": 1,
                }
            )
            for paid in page.data:
                return _id(paid.to_dict(for_json=True)["invoice"])
        return None


SENDS: Mapping[SendKind, Send] = {
    "credit_note": lambda v1, _, body, options: v1.credit_notes.create(body, options).id,
    "refund": lambda v1, _, body, options: v1.refunds.create(body, options).id,
}


def refund_state(status: str) -> str:
    """What becomes of a refund, in our words."""
    return _STATES.get(status, "pending")


def _id(named: Any) -> str:
    """An object's id, whether it came as such or expanded."""
    return str(named["id"] if isinstance(named, dict) else named or "")


def _note(found: Mapping[str, Any]) -> ProviderNote:
    return ProviderNote(
        provider_note_id=str(found["id"]),
        our_note_id=str((found.get("metadata") or {}).get("meterplane_credit_note", "")),
        provider_invoice_id=_id(found["invoice"]),
        currency=str(found["currency"]).upper(),
        total_minor=int(found["total"]),
        outside_minor=int(found.get("out_of_band_amount") or 0),
        is_void=found["status"] == "void",
        refund_ids=tuple(_id(each["refund"]) for each in found["refunds"]),
    )


def _refund(found: Mapping[str, Any]) -> ProviderRefund:
    return ProviderRefund(
        provider_refund_id=str(found["id"]),
        our_refund_id=str((found.get("metadata") or {}).get("meterplane_refund", "")),
        payment_intent_id=_id(found.get("payment_intent")),
        amount_minor=int(found["amount"]),
        currency=str(found["currency"]).upper(),
        state=refund_state(str(found["status"])),
        failure=str(found.get("failure_reason") or ""),
    )
