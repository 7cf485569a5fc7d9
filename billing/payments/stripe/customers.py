"""Customers at Stripe: made once per tenant, found again by metadata."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from billing.payments.provider import (
    CustomerOrder,
    Parameters,
    ProviderCustomer,
    ProviderRefused,
    SendKind,
)
from billing.payments.stripe.client import LIST_PAGE, Client, Send, translated


class Customers(Client):
    """The port's acts on customers."""

    def customer_parameters(self, order: CustomerOrder) -> Parameters:
        """Metadata is how a customer is found again: an e-mail is not unique."""
        return {
            "name": order.name,
            "email": order.email,
            "metadata": {"meterplane_tenant": str(order.tenant_id)},
        }

    def customer(self, customer_id: str) -> ProviderCustomer:
        with translated():
            found = self._client.v1.customers.retrieve(customer_id).to_dict(for_json=True)
        settings_of = found.get("invoice_settings") or {}
        return ProviderCustomer(customer_id, settings_of.get("default_payment_method") or "")

    def find_customer(self, tenant_id: UUID, since: datetime) -> str | None:
        with translated():
            page = self._client.v1.customers.list(
                {"limit": LIST_PAGE, "created": {"gte": int(since.timestamp())}}
            )
            for customer in page.auto_paging_iter():
                metadata = customer.to_dict(for_json=True).get("metadata") or {}
                if metadata.get("meterplane_tenant") == str(tenant_id):
                    return customer.id
        return None

    def attach_test_card(self, customer_id: str, card: str) -> str:
        if self.is_live:
            raise ProviderRefused("live_account", "A test card does not belong on a live account.")
        with translated():
            attached = self._client.v1.payment_methods.attach(card, {"customer": customer_id})
            self._client.v1.customers.update(
                customer_id, {"invoice_settings": {"default_payment_method": attached.id}}
            )
        return attached.id


SENDS: Mapping[SendKind, Send] = {
    "customer": lambda v1, _, body, options: v1.customers.create(body, options).id,
}
