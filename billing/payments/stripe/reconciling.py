"""What Stripe has, as it is compared with ours. Each kind is listed by when it was made, a hundred
a call."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import stripe

from billing.payments.checkout_port import SUBJECT
from billing.payments.reconcile_port import (
    TheirCustomer,
    TheirIntent,
    TheirInvoice,
    TheirNote,
    TheirPayment,
    TheirRefund,
)
from billing.payments.stripe.client import LIST_PAGE, Client, translated
from billing.payments.stripe.corrections import refund_state


class Reconciling(Client):
    """The port's reads of what is compared."""

    def invoices_made(self, start: datetime, end: datetime) -> list[TheirInvoice]:
        return [_invoice(each) for each in _made(self._client.v1.invoices.list, start, end)]

    def invoice_made(self, their_id: str) -> TheirInvoice | None:
        found = _one(lambda: self._client.v1.invoices.retrieve(their_id))
        return _invoice(found) if found is not None else None

    def payments_made(self, start: datetime, end: datetime) -> list[TheirPayment]:
        return [_payment(each) for each in _made(self._client.v1.invoice_payments.list, start, end)]

    def payments_of(self, their_invoice_id: str) -> list[TheirPayment]:
        with translated():
            page = self._client.v1.invoice_payments.list(
                {"limit": LIST_PAGE, "invoice": their_invoice_id}
            )
            return [_payment(each.to_dict(for_json=True)) for each in page.auto_paging_iter()]

    def intents_paid(self, start: datetime, end: datetime) -> list[TheirIntent]:
        found = _made(self._client.v1.payment_intents.list, start, end)
        return [_intent(each) for each in found if each["status"] == "succeeded"]

    def intent_paid(self, intent_id: str) -> TheirIntent | None:
        found = _one(lambda: self._client.v1.payment_intents.retrieve(intent_id))
        return _intent(found) if found is not None and found["status"] == "succeeded" else None

    def refunds_made(self, start: datetime, end: datetime) -> list[TheirRefund]:
        return [_refund(each) for each in _made(self._client.v1.refunds.list, start, end)]

    def refund_made(self, their_id: str) -> TheirRefund | None:
        found = _one(lambda: self._client.v1.refunds.retrieve(their_id))
        return _refund(found) if found is not None else None

    def credit_notes_made(self, start: datetime, end: datetime) -> list[TheirNote]:
        return [_note(each) for each in _made(self._client.v1.credit_notes.list, start, end)]

    def credit_note_made(self, their_id: str) -> TheirNote | None:
        found = _one(lambda: self._client.v1.credit_notes.retrieve(their_id))
        return _note(found) if found is not None else None

    def customers_made(self, start: datetime, end: datetime) -> list[TheirCustomer]:
        return [_customer(each) for each in _made(self._client.v1.customers.list, start, end)]

    def customer_made(self, their_id: str) -> TheirCustomer | None:
        found = _one(lambda: self._client.v1.customers.retrieve(their_id))
        return _customer(found) if found is not None and not found.get("deleted") else None

    def foreign_balance_minor(self, customer_id: str, balance_minor: int) -> int:
        with translated():
            rows = self._client.v1.customers.balance_transactions.list(
                customer_id, {"limit": LIST_PAGE}
            )
            moved = [each.to_dict(for_json=True) for each in rows.auto_paging_iter()]
        of_invoices = -sum(
            int(each["amount"]) for each in moved if each.get("invoice") or each.get("credit_note")
        )
        foreign_minor = balance_minor - of_invoices
        if balance_minor > 0:
            return max(0, min(balance_minor, foreign_minor))
        return min(0, max(balance_minor, foreign_minor))


def _made(
    listing: Callable[[Any], Any], start: datetime, end: datetime
) -> Iterator[dict[str, Any]]:
    """All that was made in [start, end)."""
    with translated():
        page = listing({"limit": LIST_PAGE, "created": _within(start, end)})
        for each in page.auto_paging_iter():
            yield each.to_dict(for_json=True)


def _one(retrieve: Callable[[], Any]) -> dict[str, Any] | None:
    """What is not there is None, and no refusal."""
    with translated():
        try:
            found: dict[str, Any] = retrieve().to_dict(for_json=True)
        except stripe.InvalidRequestError as refused:
            if refused.http_status == 404:
                return None
            raise
    return found


def _within(start: datetime, end: datetime) -> Any:
    return {"gte": math.floor(start.timestamp()), "lt": math.ceil(end.timestamp())}


def _invoice(found: Mapping[str, Any]) -> TheirInvoice:
    before, after = int(found.get("starting_balance") or 0), found.get("ending_balance")
    return TheirInvoice(
        their_id=str(found["id"]),
        our_id=_said(found, "meterplane_invoice"),
        customer_id=_id(found.get("customer")),
        number=str(found.get("number") or ""),
        status=str(found["status"]),
        currency=str(found["currency"]).upper(),
        total_minor=int(found["total"]),
        paid_minor=int(found.get("amount_paid") or 0),
        # A balance of Stripe's is what the customer owes: credit is negative.
        balance_minor=int(after) - before if after is not None else 0,
        made_at=_instant(found),
    )


def _payment(found: Mapping[str, Any]) -> TheirPayment:
    return TheirPayment(
        payment_id=str(found["id"]),
        their_invoice_id=_id(found.get("invoice")),
        status=str(found["status"]),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found.get("amount_paid") or 0),
        intent_id=_id((found.get("payment") or {}).get("payment_intent")),
    )


def _intent(found: Mapping[str, Any]) -> TheirIntent:
    return TheirIntent(
        intent_id=str(found["id"]),
        our_id=_said(found, SUBJECT),
        customer_id=_id(found.get("customer")),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found["amount_received"]),
        made_at=_instant(found),
    )


def _refund(found: Mapping[str, Any]) -> TheirRefund:
    return TheirRefund(
        their_id=str(found["id"]),
        our_id=_said(found, "meterplane_refund"),
        customer_id=_id(found.get("customer")),
        intent_id=_id(found.get("payment_intent")),
        state=refund_state(str(found["status"])),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found["amount"]),
        made_at=_instant(found),
    )


def _note(found: Mapping[str, Any]) -> TheirNote:
    return TheirNote(
        their_id=str(found["id"]),
        our_id=_said(found, "meterplane_credit_note"),
        customer_id=_id(found.get("customer")),
        their_invoice_id=_id(found.get("invoice")),
        number=str(found.get("number") or ""),
        is_void=found["status"] == "void",
        currency=str(found["currency"]).upper(),
        total_minor=int(found["total"]),
        made_at=_instant(found),
    )


def _customer(found: Mapping[str, Any]) -> TheirCustomer:
    return TheirCustomer(
        their_id=str(found["id"]),
        our_id=_said(found, "meterplane_tenant"),
        currency=str(found.get("currency") or "").upper(),
        balance_minor=-int(found.get("balance") or 0),
        made_at=_instant(found),
    )


def _said(found: Mapping[str, Any], name: str) -> str:
    return str((found.get("metadata") or {}).get(name, ""))


def _instant(found: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(found["created"]), tz=UTC)


def _id(of: Any) -> str:
    return str(of["id"] if isinstance(of, dict) else of or "")
