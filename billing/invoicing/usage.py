"""Metered usage as quantities to rate: the one place where invoicing touches metering.

Needs the tenant's door open.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from billing.pricing.book import Meter, PublishedBook
from billing.pricing.queries import prices_of
from billing.rating.rate import Period, Quantity
from meterplane.metering.queries import UsageAggregate, usage_between


def quantities_of(period: Period) -> list[Quantity]:
    """What was used in `period`, as far as it has arrived by now."""
    return [
        Quantity(
            period,
            aggregate.model,
            meter,
            aggregate.price_version_id,
            units,
            aggregate.service_tier,
        )
        for aggregate in usage_between(period.starts_at, period.ends_at)
        for meter, units in _meters(aggregate)
    ]


def prices_for(quantities: Iterable[Quantity]) -> dict[UUID, PublishedBook]:
    """The prices of every version the quantities are pinned to. A missing one stays missing."""
    found = {
        version_id: prices_of(version_id)
        for version_id in {quantity.price_version_id for quantity in quantities}
    }
    return {version_id: book for version_id, book in found.items() if book is not None}


def month_of(instant: datetime) -> datetime:
    """The first instant of the calendar month, UTC."""
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(instant: datetime) -> datetime:
    """The first instant of the calendar month after the one `instant` is in, UTC."""
    if instant.month == 12:
        return month_of(instant).replace(year=instant.year + 1, month=1)
    return month_of(instant).replace(month=instant.month + 1)


def _meters(aggregate: UsageAggregate) -> list[tuple[Meter, int]]:
    return [
        ("input_tokens", aggregate.tokens_in),
        ("output_tokens", aggregate.tokens_out),
        ("requests", aggregate.requests),
    ]
