"""What we need of a provider's credit notes and refunds, in our own values. No I/O here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NoteLine:
    """What goes back of one line there; without `line_id` it is a line of the note's own."""

    line_id: str
    description: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class NoteOrder:
    """A credit note to be issued. What meets an invoice that is paid goes back to the card it was
    charged to (`refund_minor`), or is settled outside the provider (`outside_minor`)."""

    note_id: UUID
    provider_invoice_id: str
    number: str
    reason: str
    memo: str
    lines: Sequence[NoteLine]
    refund_minor: int
    outside_minor: int


@dataclass(frozen=True, slots=True)
class ProviderNote:
    """A credit note as the provider has it; `our_note_id` is empty for one that is not ours."""

    provider_note_id: str
    our_note_id: str
    provider_invoice_id: str
    currency: str
    total_minor: int
    outside_minor: int
    is_void: bool
    refund_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProviderCharge:
    """The charge that paid an invoice, and what of it can still go back."""

    charge_id: str
    payment_intent_id: str
    amount_minor: int
    refundable_minor: int


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """Money of a charge to be given back."""

    refund_id: UUID
    payment_intent_id: str
    amount_minor: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProviderRefund:
    """A refund as the provider has it; `our_refund_id` is empty for one that is not ours."""

    provider_refund_id: str
    our_refund_id: str
    payment_intent_id: str
    amount_minor: int
    currency: str
    state: str
    failure: str


class Corrections(Protocol):
    """A provider that issues credit notes and gives money back."""

    def credit_note_parameters(self, order: NoteOrder) -> Parameters: ...

    def refund_parameters(self, order: RefundOrder) -> Parameters: ...

    def credit_notes(self, provider_invoice_id: str) -> list[ProviderNote]:
        """Every one of an invoice, by consistent listing."""
        ...

    def charge_of(self, provider_invoice_id: str) -> ProviderCharge | None:
        """The charge that paid an invoice; None where no charge did."""
        ...

    def refunds(self, payment_intent_id: str) -> list[ProviderRefund]:
        """Every one of a payment, by consistent listing."""
        ...

    def invoice_of_payment(self, payment_intent_id: str) -> str | None:
        """The invoice that a payment is of, if it is of one."""
        ...
