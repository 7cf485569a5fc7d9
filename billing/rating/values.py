"""What goes into rating and what comes out, as values.

Amounts are integers in minor units of one currency; quantities are integers, or exact decimals of a
declared meter; unit prices are pico.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, get_args
from uuid import UUID

from billing.pricing.book import METERS, SERVICE_TIERS
from billing.pricing.contract import Contract
from billing.pricing.entry import Match
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.invariant import InvariantBroken

__all__ = [
    "KINDS", "METERS", "TIERS", "Account", "Billed", "LineKind", "Period", "Quantity", "RatedLine",
    "RatedPeriod", "UsageCannotBeRated", "contract_first", "month_after", "month_of",
]  # fmt: skip

TIERS = SERVICE_TIERS  # meters in their order are that of a model's lines, one tier's together

# In the order they are reckoned in and stand on an invoice.
LineKind = Literal["usage", "adjustment", "discount", "maximum", "minimum", "commitment"]
KINDS: tuple[LineKind, ...] = get_args(LineKind)


class UsageCannotBeRated(InvariantBroken):
    """A quantity has no price, a negative sum or a foreign currency. Nothing is guessed."""


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open, UTC. `is_late` marks a period that had been closed when its usage arrived."""

    starts_at: datetime
    ends_at: datetime
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """Units of one meter of one model in one period, pinned to a price-book version.

    `contract_id` is of the contract that held. `dimensions` are those of a declared meter. Of the
    product's own they are the model and the tier, which need not be told again, and how it was
    served where an entry that may apply matches by that.
    """

    period: Period
    model: str
    meter: str
    price_version_id: UUID
    units: int | Decimal
    service_tier: ServiceTier = "standard"
    contract_id: UUID | None = None
    dimensions: Match | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What invoices say so far of one price in one period: summed over all their lines.

    A line with a unit price is told by everything here; one of tiers by its month, entry and
    contract; a discount and the like by its month, contract and kind.
    """

    period: Period
    kind: LineKind
    amount_minor: int
    quantity: int | Decimal = 0
    model: str = ""
    meter: str = ""
    service_tier: ServiceTier = "standard"
    price_version_id: UUID | None = None
    entry_id: UUID | None = None
    contract_id: UUID | None = None
    unit_price_pico: int | None = None
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """What else decides what a tenant owes: every period whose usage is given, the running one
    last; what was billed for the others; and the contracts that hold in them."""

    periods: tuple[Period, ...]
    billed: tuple[Billed, ...] = ()
    contracts: Mapping[UUID, Contract] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RatedLine:
    """What one price owes.

    A plain unit price has a line for each (period, model, service tier, meter, price version); an
    entry with tiers one for all it matched, with `price_model` and `breakdown` as JSON; what a
    contract says has lines without a quantity. The `breakdown` of a unit price that is matched by
    how a request was served is that match.
    """

    period: Period
    model: str
    meter: str
    price_version_id: UUID | None
    quantity: int | Decimal
    unit_price_pico: int | None
    amount_pico: int | None
    amount_minor: int
    explanation: str
    service_tier: ServiceTier = "standard"
    kind: LineKind = "usage"
    display_name: str = ""
    entry_id: UUID | None = None
    contract_id: UUID | None = None
    price_model: dict[str, Any] | None = None
    breakdown: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RatedPeriod:
    """All lines, their sum, and the SHA-256 (hex) over canonical inputs and outputs."""

    currency: str
    lines: tuple[RatedLine, ...]
    total_minor: int
    content_hash: str


def contract_first(entry_id: UUID | None, contract_id: UUID | None) -> tuple[bool, str, str]:
    """The order of what differs in these alone: a contract's before the book's, whenever each was
    made. As text, for None is not ordered against an id."""
    return contract_id is None, str(entry_id), str(contract_id)


def month_of(instant: datetime) -> datetime:
    """The first instant of the calendar month, UTC."""
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(instant: datetime) -> datetime:
    """The first instant of the calendar month after the one `instant` is in, UTC."""
    if instant.month == 12:
        return month_of(instant).replace(year=instant.year + 1, month=1)
    return month_of(instant).replace(month=instant.month + 1)
