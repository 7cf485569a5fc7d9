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
    """Money that went into an invoice there, or is to: `paid`, `open` or `canceled`."""

    payment_id: str
    their_invoice_id: str
    status: str
    currency: str
    amount_minor: int
    intent_id: str = ""


@dataclass(frozen=True, slots=True)
class TheirIntent:
    """Money that came in there, whatever for. `our_id` is of what we asked it for."""

    intent_id: str
    our_id: str
    customer_id: str
    currency: str
    amount_minor: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class TheirRefund:
    """Money that went back there, whoever sent it."""

    their_id: str
    our_id: str
    customer_id: str
    intent_id: str
    state: str
    currency: str
    amount_minor: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class TheirNote:
    """A credit note there."""

    their_id: str
    our_id: str
    customer_id: str
    their_invoice_id: str
    number: str
    is_void: bool
    currency: str
    total_minor: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class TheirCustomer:
    """A customer there, and what is kept for them: positive where they are in credit. The currency
    is empty until something has one."""

    their_id: str
    our_id: str
    currency: str
    balance_minor: int
    made_at: datetime


class Reconciling(Protocol):
    """The port's reads of what is compared."""

    def invoices_made(self, start: datetime, end: datetime) -> list[TheirInvoice]:
        """All that were made in [start, end), to the second, whoever made them."""
        ...

    def invoice_made(self, their_id: str) -> TheirInvoice | None:
        """One; None if it is not there."""
        ...

    def payments_made(self, start: datetime, end: datetime) -> list[TheirPayment]:
        """All whose record was made in [start, end), whatever invoice they are of."""
        ...

    def payments_of(self, their_invoice_id: str) -> list[TheirPayment]:
        """All of an invoice."""
        ...

    def intents_paid(self, start: datetime, end: datetime) -> list[TheirIntent]:
        """All payments that were made in [start, end) and succeeded, of invoices and others."""
        ...

    def intent_paid(self, intent_id: str) -> TheirIntent | None:
        """One; None if it is not there, or not paid."""
        ...

    def refunds_made(self, start: datetime, end: datetime) -> list[TheirRefund]: ...

    def refund_made(self, their_id: str) -> TheirRefund | None: ...

    def credit_notes_made(self, start: datetime, end: datetime) -> list[TheirNote]: ...

    def credit_note_made(self, their_id: str) -> TheirNote | None: ...

    def customers_made(self, start: datetime, end: datetime) -> list[TheirCustomer]: ...

    def customer_made(self, their_id: str) -> TheirCustomer | None: ...

    def foreign_balance_minor(self, customer_id: str, balance_minor: int) -> int:
        """What is left in a customer's balance of what no invoice gave to it or took from it."""
        ...
