"""Pages of the provider's that a customer is sent to: to keep a card, to pay, to manage both.

No card number is ever typed on a page of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

SUBJECT = "meterplane_subject"  # where what is made there says which of ours it is for


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """One visit. `subject_id` is ours and comes back when the checkout is read; without an amount
    a card is kept and nothing is paid."""

    subject_id: UUID
    tenant_id: UUID
    customer_id: str
    currency: str
    return_url: str
    amount_minor: int | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class ProviderCheckout:
    """A checkout as the provider has it. `status`: open, complete or expired; `url` is where the
    customer goes while it is open. A payment method is told of a card that was kept, an intent of
    what was paid."""

    checkout_id: str
    subject_id: str
    customer_id: str
    status: str
    is_paid: bool
    currency: str
    amount_minor: int | None
    url: str
    payment_method: str
    intent_id: str = ""


@dataclass(frozen=True, slots=True)
class ProviderCard:
    """The card that a customer's invoices are charged to. `kept_at`: when it was typed in."""

    payment_method: str
    brand: str
    last4: str
    kept_at: datetime


class Checkouts(Protocol):
    """What a provider does about cards and checkouts."""

    def checkout_parameters(self, order: CheckoutOrder) -> Mapping[str, Any]: ...

    def checkout(self, checkout_id: str) -> ProviderCheckout: ...

    def find_checkout(self, customer_id: str, subject_id: UUID, since: datetime) -> str | None:
        """The checkout made for ours at or after `since`, by consistent listing."""
        ...

    def card(self, customer_id: str) -> ProviderCard | None:
        """The customer's default."""
        ...

    def payment_method(self, payment_method: str) -> ProviderCard: ...

    def choose_card(self, customer_id: str, payment_method: str, idempotency_key: str) -> None:
        """Make a card of the customer's its default."""
        ...

    def open_portal(self, customer_id: str, return_url: str, idempotency_key: str) -> str:
        """Where the customer manages cards and invoices; the link is theirs, and short-lived."""
        ...
