"""A contract as a value: what one tenant agreed on. No I/O.

Amounts are in minor units of `currency`, each for a calendar month; a month the contract holds in
part has that part of them. `[starts_at, ends_at)` is when it holds; None is without end.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.pricing.entry import Entry
from meterplane.kernel.decimals import ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is agreed on. `pinned_version_id` is rated at instead of the book's own versions until
    `pinned_until`, or as long as the contract holds."""

    book: str
    currency: str
    starts_at: datetime
    ends_at: datetime | None = None
    pinned_version_id: UUID | None = None
    pinned_until: datetime | None = None
    discount_percent: Decimal = ZERO
    commitment_minor: int | None = None
    minimum_minor: int | None = None
    maximum_minor: int | None = None
    entries: tuple[Entry, ...] = ()
    note: str = ""

    def pinned_at(self, instant: datetime) -> UUID | None:
        """The version that is kept for the tenant at an instant."""
        if self.pinned_until is not None and instant >= self.pinned_until:
            return None
        return self.pinned_version_id


@dataclass(frozen=True, slots=True)
class Contract:
    """Terms that a tenant has, or had."""

    id: UUID
    number: int
    terms: Terms
    created_at: datetime
    created_by: str
    supersedes_id: UUID | None = None

    def holds_at(self, instant: datetime) -> bool:
        """Half-open."""
        ends_at = self.terms.ends_at
        return self.terms.starts_at <= instant and (ends_at is None or instant < ends_at)
