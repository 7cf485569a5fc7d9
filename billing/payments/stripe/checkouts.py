"""Checkout and the customer portal at Stripe: pages that customers are sent to, and their cards."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from billing.payments.checkout_port import (
    SUBJECT,
    CheckoutOrder,
    ProviderCard,
    ProviderCheckout,
)
from billing.payments.provider import Parameters, SendKind
from billing.payments.stripe.client import LIST_PAGE, Client, Send, translated


class Checkouts(Client):
    """The port's acts on checkouts and cards."""

    def checkout_parameters(self, order: CheckoutOrder) -> Parameters:
        """Cards only: what is paid by card is paid, or not, when the customer comes back."""
        metadata = {SUBJECT: str(order.subject_id), "meterplane_tenant": str(order.tenant_id)}
        common = {
            "customer": order.customer_id,
            "currency": order.currency.lower(),
            "allowed_payment_method_types": ["card"],
            "success_url": order.return_url,
            "cancel_url": order.return_url,
            "client_reference_id": str(order.subject_id),
            "metadata": metadata,
        }
        if order.amount_minor is None:
            return {**common, "mode": "setup", "setup_intent_data": {"metadata": metadata}}
        line = {
            "price_data": {
                "currency": order.currency.lower(),
                "unit_amount": order.amount_minor,
                "product_data": {"name": order.description},
            },
            "quantity": 1,
        }
        return {
            **common,
            "mode": "payment",
            "line_items": [line],
            "payment_intent_data": {"description": order.description, "metadata": metadata},
        }

    def checkout(self, checkout_id: str) -> ProviderCheckout:
        with translated():
            found = self._client.v1.checkout.sessions.retrieve(
                checkout_id, {"expand": ["setup_intent"]}
            )
            return _checkout(found.to_dict(for_json=True))

    def find_checkout(self, customer_id: str, subject_id: UUID, since: datetime) -> str | None:
        with translated():
            page = self._client.v1.checkout.sessions.list(
                {
                    "customer": customer_id,
                    "limit": LIST_PAGE,
                    "created": {"gte": int(since.timestamp())},
                }
            )
            for session in page.auto_paging_iter():
                metadata = session.to_dict(for_json=True).get("metadata") or {}
                if metadata.get(SUBJECT) == str(subject_id):
                    return str(session.id)
        return None

    def card(self, customer_id: str) -> ProviderCard | None:
        with translated():
            found = self._client.v1.customers.retrieve(
                customer_id, {"expand": ["invoice_settings.default_payment_method"]}
            ).to_dict(for_json=True)
        default = (found.get("invoice_settings") or {}).get("default_payment_method")
        return _card(default) if default else None

    def payment_method(self, payment_method: str) -> ProviderCard:
        with translated():
            found = self._client.v1.payment_methods.retrieve(payment_method)
            return _card(found.to_dict(for_json=True))

    def choose_card(self, customer_id: str, payment_method: str, idempotency_key: str) -> None:
        with translated():
            self._client.v1.customers.update(
                customer_id,
                {"invoice_settings": {"default_payment_method": payment_method}},
                {"idempotency_key": idempotency_key},
            )

    def open_portal(self, customer_id: str, return_url: str, idempotency_key: str) -> str:
        with translated():
            opened = self._client.v1.billing_portal.sessions.create(
                {"customer": customer_id, "return_url": return_url},
                {"idempotency_key": idempotency_key},
            )
        return opened.url


SENDS: Mapping[SendKind, Send] = {
    "checkout": lambda v1, _, body, options: v1.checkout.sessions.create(body, options).id,
}


def _checkout(found: Mapping[str, Any]) -> ProviderCheckout:
    metadata = found.get("metadata") or {}
    setup = found.get("setup_intent") or {}
    return ProviderCheckout(
        checkout_id=str(found["id"]),
        subject_id=str(metadata.get(SUBJECT, "")),
        customer_id=str(found.get("customer") or ""),
        status=str(found["status"]),
        is_paid=found["payment_status"] == "paid",
        currency=str(found.get("currency") or "").upper(),
        amount_minor=found.get("amount_total"),
        url=str(found.get("url") or ""),
        payment_method=str(setup.get("payment_method") or ""),
        intent_id=str(found.get("payment_intent") or ""),
    )


def _card(found: Mapping[str, Any]) -> ProviderCard:
    """What is no card is told by its type: a customer may choose one in Stripe's portal."""
    card = found.get("card") or {}
    return ProviderCard(
        payment_method=str(found["id"]),
        brand=str(card.get("brand") or found.get("type") or ""),
        last4=str(card.get("last4") or ""),
        kept_at=datetime.fromtimestamp(int(found["created"]), tz=UTC),
    )
