"""Charging a customer's card without an invoice, and without the customer being there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ChargeOrder:
    """What to charge. `subject_id` is ours and comes back when the charge is read."""

    subject_id: UUID
    tenant_id: UUID
    customer_id: str
    payment_method: str
    currency: str
    amount_minor: int
    description: str


@dataclass(frozen=True, slots=True)
class ProviderCharge:
    """A charge as the provider has it. `status`: succeeded, failed, or pending as long as the
    provider does not know itself."""

    charge_id: str
    subject_id: str
    customer_id: str
    status: str
    currency: str
    amount_minor: int
    failure: str


class Charges(Protocol):
    """What a provider does about charges of our own."""

    def charge_parameters(self, order: ChargeOrder) -> Mapping[str, Any]: ...

    def charge(self, charge_id: str) -> ProviderCharge: ...

    def find_charge(self, customer_id: str, subject_id: UUID, since: datetime) -> str | None:
        """The charge made for ours at or after `since`, whatever came of it."""
        ...
