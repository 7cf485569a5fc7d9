"""Invoices at Stripe: a draft filled with lines of ours, read back, finalised and paid."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from billing.payments.provider import (
    DraftOrder,
    LineOrder,
    Parameters,
    ProviderInvoice,
    ProviderLine,
    SendKind,
)
from billing.payments.stripe.client import LIST_PAGE, Client, Send, translated

# What a taxed line is of, there: which kind of goods is the account's setting.
TAXED_PRODUCT = "Usage"


class Invoices(Client):
    """The port's acts on invoices."""

    def draft_parameters(self, order: DraftOrder) -> Parameters:
        """Nothing pending is swept in, and Stripe does not finalise by itself."""
        taxed = {"automatic_tax": {"enabled": True}} if order.is_taxed else {}
        collected: dict[str, Any] = {"collection_method": "charge_automatically"}
        if order.days_until_due is not None:
            collected = {
                "collection_method": "send_invoice",
                "days_until_due": order.days_until_due,
            }
        return {
            **taxed,
            **collected,
            "customer": order.customer_id,
            "currency": order.currency.lower(),
            "auto_advance": False,
            "pending_invoice_items_behavior": "exclude",
            "description": order.description,
            "footer": f"Every line as CSV: {order.lines_url}",
            "metadata": {
                "meterplane_invoice": str(order.invoice_id),
                "meterplane_tenant": str(order.tenant_id),
                "meterplane_digest": order.digest,
            },
        }

    def lines_parameters(self, lines: Sequence[LineOrder], taxed_in: str = "") -> Parameters:
        """Integer amounts; quantity and unit price are in the description.

        A bare amount says nothing of whether tax is in it; one that is taxed is a price, once.
        """
        return {
            "lines": [
                {
                    "description": line.description,
                    **_amount(line, taxed_in.lower()),
                    "period": {
                        "start": int(line.starts_at.timestamp()),
                        "end": int(line.ends_at.timestamp()),
                    },
                    "metadata": {"meterplane_line": line.uid},
                }
                for line in lines
            ]
        }

    def finalise_parameters(self) -> Parameters:
        return {"auto_advance": False}

    def pay_parameters(self) -> Parameters:
        return {}

    def invoice(self, provider_invoice_id: str) -> ProviderInvoice:
        with translated():
            found = self._client.v1.invoices.retrieve(provider_invoice_id)
            return _invoice(found.to_dict(for_json=True))

    def lines(self, provider_invoice_id: str) -> list[ProviderLine]:
        """All of them, page by page: the list inside an invoice is only the first page."""
        with translated():
            first = self._client.v1.invoices.line_items.list(
                provider_invoice_id, {"limit": LIST_PAGE}
            )
            return [_line(line.to_dict(for_json=True)) for line in first.auto_paging_iter()]

    def find_invoice(self, customer_id: str, our_invoice_id: UUID, since: datetime) -> str | None:
        with translated():
            page = self._client.v1.invoices.list(
                {
                    "customer": customer_id,
                    "limit": LIST_PAGE,
                    "created": {"gte": int(since.timestamp())},
                }
            )
            for invoice in page.auto_paging_iter():
                metadata = invoice.to_dict(for_json=True).get("metadata") or {}
                if metadata.get("meterplane_invoice") == str(our_invoice_id):
                    return str(invoice.id)
        return None


SENDS: Mapping[SendKind, Send] = {
    "draft": lambda v1, _, body, options: v1.invoices.create(body, options).id,
    "lines": lambda v1, to, body, options: v1.invoices.add_lines(to, body, options).id,
    "finalise": lambda v1, to, body, options: v1.invoices.finalize_invoice(to, body, options).id,
    "send": lambda v1, to, body, options: v1.invoices.send_invoice(to, body, options).id,
    "pay": lambda v1, to, body, options: v1.invoices.pay(to, body, options).id,
    "void": lambda v1, to, body, options: v1.invoices.void_invoice(to, body, options).id,
    "write_off": lambda v1, to, body, options: v1.invoices.mark_uncollectible(to, body, options).id,
}


def _amount(line: LineOrder, taxed_in: str) -> dict[str, Any]:
    if not taxed_in:
        return {"amount": line.amount_minor}
    price = {
        "currency": taxed_in,
        "unit_amount": line.amount_minor,
        "tax_behavior": "exclusive",
        "product_data": {"name": TAXED_PRODUCT},
    }
    return {"price_data": price, "quantity": 1}


def _invoice(found: Mapping[str, Any]) -> ProviderInvoice:
    metadata = found.get("metadata") or {}
    paid_at = (found.get("status_transitions") or {}).get("paid_at")
    customer = found.get("customer")
    return ProviderInvoice(
        provider_invoice_id=str(found["id"]),
        our_invoice_id=str(metadata.get("meterplane_invoice", "")),
        digest=str(metadata.get("meterplane_digest", "")),
        customer_id=str(customer["id"] if isinstance(customer, dict) else customer),
        status=str(found["status"]),
        currency=str(found["currency"]).upper(),
        subtotal_minor=int(found["subtotal"]),
        total_minor=int(found["total"]),
        amount_due_minor=int(found["amount_due"]),
        amount_paid_minor=int(found["amount_paid"]),
        starting_balance_minor=int(found.get("starting_balance") or 0),
        ending_balance_minor=found.get("ending_balance"),
        attempts=int(found.get("attempt_count") or 0),
        is_attempted=bool(found.get("attempted")),
        is_live=bool(found.get("livemode")),
        number=str(found.get("number") or ""),
        hosted_url=str(found.get("hosted_invoice_url") or ""),
        paid_at=datetime.fromtimestamp(paid_at, tz=UTC) if paid_at else None,
        amount_remaining_minor=int(found["amount_remaining"]),
        credited_minor=int(found["pre_payment_credit_notes_amount"])
        + int(found["post_payment_credit_notes_amount"]),
    )


def _line(found: Mapping[str, Any]) -> ProviderLine:
    metadata = found.get("metadata") or {}
    return ProviderLine(
        uid=str(metadata.get("meterplane_line", "")),
        amount_minor=int(found["amount"]),
        currency=str(found["currency"]).upper(),
        description=str(found.get("description") or ""),
        line_id=str(found["id"]),
    )
