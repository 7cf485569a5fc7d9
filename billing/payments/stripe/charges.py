"""Payment intents at Stripe that are confirmed at once, off session: a charge of ours."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from billing.payments.charge_port import ChargeOrder, ProviderCharge
from billing.payments.checkout_port import SUBJECT
from billing.payments.provider import Parameters, SendKind
from billing.payments.stripe.client import LIST_PAGE, Client, Send, translated

# An intent that waits for a card or for its holder was confirmed in vain: nobody is there.
_STATUS = {"succeeded": "succeeded", "processing": "pending"}


class Charges(Client):
    """The port's acts on charges."""

    def charge_parameters(self, order: ChargeOrder) -> Parameters:
        return {
            "amount": order.amount_minor,
            "currency": order.currency.lower(),
            "customer": order.customer_id,
            "payment_method": order.payment_method,
            "allowed_payment_method_types": ["card"],
            "confirm": True,
            "off_session": True,
            "description": order.description,
            "metadata": {
                SUBJECT: str(order.subject_id),
                "meterplane_tenant": str(order.tenant_id),
            },
        }

    def charge(self, charge_id: str) -> ProviderCharge:
        with translated():
            found = self._client.v1.payment_intents.retrieve(charge_id)
            return _charge(found.to_dict(for_json=True))

    def find_charge(self, customer_id: str, subject_id: UUID, since: datetime) -> str | None:
        with translated():
            page = self._client.v1.payment_intents.list(
                {
                    "customer": customer_id,
                    "limit": LIST_PAGE,
                    "created": {"gte": int(since.timestamp())},
                }
            )
            for intent in page.auto_paging_iter():
                metadata = intent.to_dict(for_json=True).get("metadata") or {}
                if metadata.get(SUBJECT) == str(subject_id):
                    return str(intent.id)
        return None


SENDS: Mapping[SendKind, Send] = {
    "charge": lambda v1, _, body, options: v1.payment_intents.create(body, options).id,
}


def _charge(found: Mapping[str, Any]) -> ProviderCharge:
    metadata = found.get("metadata") or {}
    error = found.get("last_payment_error") or {}
    status = _STATUS.get(str(found["status"]), "failed")
    return ProviderCharge(
        charge_id=str(found["id"]),
        subject_id=str(metadata.get(SUBJECT, "")),
        customer_id=str(found.get("customer") or ""),
        status=status,
        currency=str(found["currency"]).upper(),
        amount_minor=int(found["amount_received"] if status == "succeeded" else found["amount"]),
        failure=str(error.get("message") or ""),
    )
