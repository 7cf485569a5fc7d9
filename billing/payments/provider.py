"""What we need of any payment provider, in its own values. No I/O here.

A provider does two kinds of things. *Sends* change something there: their parameters are made by
the pure `*_parameters` functions, frozen in a step row before the first call, and handed back to
`send` unchanged, however often. *Reads* tell the truth after an unclear outcome.

Amounts are integers in minor units; currencies are ISO 4217 upper case on our side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from billing.payments.charge_port import Charges
from billing.payments.checkout_port import Checkouts
from billing.payments.correction_port import Corrections
from billing.payments.dispute_port import Disputes
from billing.payments.events_port import Events
from billing.payments.reconcile_port import Reconciling
from billing.payments.tax_port import TaxProvider
from meterplane.kernel.errors import WorldError

SendKind = Literal[
    "customer", "draft", "lines", "finalise", "send", "pay", "void", "write_off",
    "checkout", "charge", "credit_note", "refund",
]  # fmt: skip
Parameters = Mapping[str, Any]  # JSON: what one call carries


class ProviderUnavailable(WorldError):
    """No answer, or "later". The same key may be sent again: whether it had effect is unknown."""


class ProviderFault(WorldError):
    """An answer of 5xx, which the provider may replay for this key: look before sending again."""


class ProviderNotConfigured(WorldError):
    """Our key or its rights are wrong. Nothing happened there; an operator must act."""


class NoProvider(ProviderNotConfigured):
    """This installation collects through nobody, and means it: later is no better."""


class ProviderRefused(Exception):
    """A definite no to what we sent: our fault or a state we did not expect. Nothing happened."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CardDeclined(ProviderRefused):
    """The customer's bank said no. The invoice stays open."""


class EventRefused(Exception):
    """A webhook that is not authentic, not recent or not for this installation."""


@dataclass(frozen=True, slots=True)
class CustomerOrder:
    """Who is billed."""

    tenant_id: UUID
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class DraftOrder:
    """An empty invoice to be filled. `digest` is over everything that must arrive; `lines_url` is
    where all lines are, as the provider may get sums of them. With `is_taxed` the provider computes
    taxes and puts them on top. With `days_until_due` it is sent to the customer to be paid, else
    charged."""

    invoice_id: UUID
    tenant_id: UUID
    customer_id: str
    currency: str
    digest: str
    description: str
    lines_url: str
    is_taxed: bool = False
    days_until_due: int | None = None


@dataclass(frozen=True, slots=True)
class LineOrder:
    """One line: `uid` is ours and comes back when lines are read."""

    uid: str
    description: str
    amount_minor: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class ProviderCustomer:
    """A customer as the provider has it."""

    customer_id: str
    default_payment_method: str


@dataclass(frozen=True, slots=True)
class ProviderInvoice:
    """An invoice as the provider has it. `our_invoice_id` and `digest` come from its metadata.

    `amount_due_minor` and the balances may differ from the total when the provider carries a
    customer balance: they are facts to record, not to reconcile on. `amount_paid_minor` is money.
    Credit notes leave the total as it is: `credited_minor` is what they come to.
    """

    provider_invoice_id: str
    our_invoice_id: str
    digest: str
    customer_id: str
    status: str
    currency: str
    subtotal_minor: int
    total_minor: int
    amount_due_minor: int
    amount_paid_minor: int
    starting_balance_minor: int
    ending_balance_minor: int | None
    attempts: int
    is_attempted: bool
    is_live: bool
    number: str
    hosted_url: str
    paid_at: datetime | None
    amount_remaining_minor: int = 0
    credited_minor: int = 0

    @property
    def settled_minor(self) -> int:
        """What the customer paid, with what the provider took for it from the balance it keeps of
        them, which is below zero where they are in credit."""
        if self.ending_balance_minor is None:
            return self.amount_paid_minor
        return self.amount_paid_minor + self.ending_balance_minor - self.starting_balance_minor


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """A line as the provider has it; `uid` is empty for a line that is not ours."""

    uid: str
    amount_minor: int
    currency: str
    description: str
    line_id: str = ""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """A verified webhook: which object to read again, and nothing to be believed beyond that."""

    event_id: str
    type: str
    object_type: str
    object_id: str


class PaymentProvider(
    Checkouts, Charges, Corrections, Disputes, Events, Reconciling, TaxProvider, Protocol
):
    """One account at one provider."""

    name: str
    is_live: bool

    def minimum_minor(self, currency: str) -> int:
        """The least that can be charged; 1 where none is known."""
        ...

    def customer_parameters(self, order: CustomerOrder) -> Parameters: ...

    def draft_parameters(self, order: DraftOrder) -> Parameters: ...

    def lines_parameters(self, lines: Sequence[LineOrder], taxed_in: str = "") -> Parameters:
        """`taxed_in` is the currency of lines that the provider taxes; none of them is below 0."""
        ...

    def finalise_parameters(self) -> Parameters: ...

    def pay_parameters(self) -> Parameters: ...

    def send(
        self, kind: SendKind, target_id: str, parameters: Parameters, idempotency_key: str
    ) -> str:
        """Make one call; the id of what was made or moved. `target_id` is the invoice's, if any.

        Raises `ProviderUnavailable`, `ProviderFault`, `ProviderNotConfigured`, `ProviderRefused`,
        `CardDeclined`.
        """
        ...

    def customer(self, customer_id: str) -> ProviderCustomer: ...

    def invoice(self, provider_invoice_id: str) -> ProviderInvoice:
        """Raises `ProviderRefused` with code `missing` when it is not there (any more)."""
        ...

    def lines(self, provider_invoice_id: str) -> list[ProviderLine]: ...

    def find_customer(self, tenant_id: UUID, since: datetime) -> str | None:
        """The customer made for the tenant at or after `since`, by consistent listing."""
        ...

    def find_invoice(self, customer_id: str, our_invoice_id: UUID, since: datetime) -> str | None:
        """The invoice made for ours at or after `since`, by consistent listing."""
        ...

    def attach_test_card(self, customer_id: str, card: str) -> str:
        """Make a test card the customer's default; its id. Refused on a live account."""
        ...

    def ensure_webhook_endpoint(self, url: str, *, renew: bool) -> str | None:
        """Register `url` for our events; the signing secret if one was made by this call."""
        ...
