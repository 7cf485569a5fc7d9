"""What we need of a provider's disputes, in our own values. No I/O here."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DisputeTransaction:
    """What a dispute took from the account (below zero) or gave back, and the fee for that; in the
    currency of the account, which need not be the payment's."""

    transaction_id: str
    currency: str
    amount_minor: int
    fee_minor: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ProviderDispute:
    """A dispute as the provider has it; `payment_intent_id` is empty where it names none."""

    provider_dispute_id: str
    charge_id: str
    payment_intent_id: str
    status: str
    reason: str
    currency: str
    amount_minor: int
    evidence_due_at: datetime | None
    has_evidence: bool
    opened_at: datetime
    transactions: tuple[DisputeTransaction, ...]

    def moved_minor(self, transaction: DisputeTransaction) -> int:
        """What a transaction moved of the payment: converted, it is the whole disputed amount."""
        if transaction.currency == self.currency or not transaction.amount_minor:
            return transaction.amount_minor
        return self.amount_minor if transaction.amount_minor > 0 else -self.amount_minor


class Disputes(Protocol):
    """A provider whose payments can be disputed."""

    def dispute(self, provider_dispute_id: str) -> ProviderDispute:
        """One. Raises `ProviderRefused` with code `missing` when it is not there."""
        ...

    def disputes_made(self, start: datetime, end: datetime) -> list[ProviderDispute]:
        """All that were opened in [start, end), to the second, whoever paid."""
        ...
