"""What Stripe has, as it is compared with ours: invoices and what was paid into them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import stripe

from billing.payments.reconcile_port import TheirInvoice, TheirPayment
from billing.payments.stripe.client import LIST_PAGE, Client, translated


class Reconciling(Client):
    """The port's reads of what is compared."""

    def invoices_made(self, start: datetime, end: datetime) -> list[TheirInvoice]:
        with translated():
            page = self._client.v1.invoices.list(
                {"limit": LIST_PAGE, "created": _within(start, end)}
            )
            return [_invoice(each.to_dict(for_json=True)) for each in page.auto_paging_iter()]

    def invoice_made(self, their_id: str) -> TheirInvoice | None:
        with translated():
            try:
                found = self._client.v1.invoices.retrieve(their_id)
            except stripe.InvalidRequestError as refused:
                if refused.http_status == 404:
                    return None
                raise
        return _invoice(found.to_dict(for_json=True))

    def payments_made(self, start: datetime, end: datetime) -> list[TheirPayment]:
        with translated():
            page = self._client.v1.invoice_payments.list(
                {"limit": LIST_PAGE, "status": "paid", "created": _within(start, end)}
            )
            return [_payment(each.to_dict(for_json=True)) for each in page.auto_paging_iter()]

    def payments_of(self, their_invoice_id: str) -> list[TheirPayment]:
        with translated():
            page = self._client.v1.invoice_payments.list(
                {"limit": LIST_PAGE, "status": "paid", "invoice": their_invoice_id}
            )
            return [_payment(each.to_dict(for_json=True)) for each in page.auto_paging_iter()]


def _within(start: datetime, end: datetime) -> Any:
    return {"gte": math.floor(start.timestamp()), "lt": math.ceil(end.timestamp())}


def _invoice(found: Mapping[str, Any]) -> TheirInvoice:
    metadata = found.get("metadata") or {}
    before, after = int(found.get("starting_balance") or 0), found.get("ending_balance")
    return TheirInvoice(
        their_id=str(found["id"]),
        our_id=str(metadata.get("meterplane_invoice", "")),
        customer_id=_id(found.get("customer")),
        number=str(found.get("number") or ""),
        status=str(found["status"]),
        currency=str(found["currency"]).upper(),
        total_minor=int(found["total"]),
        paid_minor=int(found.get("amount_paid") or 0),
        # A balance of Stripe's is what the customer owes: credit is negative.
        balance_minor=int(after) - before if after is not None else 0,
        made_at=datetime.fromtimestamp(int(found["created"]), tz=UTC),
    )


def _payment(found: Mapping[str, Any]) -> TheirPayment:
    return TheirPayment(
        payment_id=str(found["id"]),
        their_invoice_id=_id(found.get("invoice")),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found.get("amount_paid") or 0),
    )


def _id(of: Any) -> str:
    return str(of["id"] if isinstance(of, dict) else of or "")
