"""What we need of a provider to compare both sides: lists of what was made when. No I/O here."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TheirInvoice:
    """An invoice there. `our_id` is from its metadata; `balance_minor` is what the customer's
    balance gave to it, negative where the invoice gave to the balance."""

    their_id: str
    our_id: str
    customer_id: str
    number: str
    status: str
    currency: str
    total_minor: int
    paid_minor: int
    balance_minor: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class TheirPayment:
    """Money that went into an invoice there."""

    payment_id: str
    their_invoice_id: str
    currency: str
    amount_minor: int


class Reconciling(Protocol):
    """The port's reads of what is compared."""

    def invoices_made(self, start: datetime, end: datetime) -> list[TheirInvoice]:
        """All that were made in [start, end), to the second, whoever made them."""
        ...

    def invoice_made(self, their_id: str) -> TheirInvoice | None:
        """One; None if it is not there."""
        ...

    def payments_made(self, start: datetime, end: datetime) -> list[TheirPayment]:
        """All paid ones whose record was made in [start, end), whatever invoice they are of."""
        ...

    def payments_of(self, their_invoice_id: str) -> list[TheirPayment]:
        """All paid ones of an invoice."""
        ...
