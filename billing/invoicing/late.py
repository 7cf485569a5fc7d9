"""Usage that arrived after its period was closed.

Guarantees: such usage becomes a line exactly once. What is owed late is a difference of two facts,
`quantity now - quantity on any invoice line of that period`, per model, service tier, meter and
price version. So it needs no marker, and a crash, a repeat or a second late arrival cannot bill
twice or drop any.

A voided invoice's lines count as invoiced: to forgive is one act, to bill again is another.
"""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.models import BillingPeriod, InvoiceLine
from billing.invoicing.usage import month_after, month_of, prices_for, quantities_of
from billing.rating.rate import Period, Quantity
from meterplane.metering.queries import first_usage_at

# A journal may sit on a dead host's disk for a while. 400 days is 14 closed months, two reads each.
LATE_WINDOW = timedelta(days=400)


class _Key(NamedTuple):
    starts_at: datetime
    ends_at: datetime
    model: str
    service_tier: str
    meter: str
    price_version_id: UUID


def late_quantities(before: datetime) -> list[Quantity]:
    """What closed periods ending at or before `before` still owe. Needs the tenant's door.

    May be negative when usage vanished; rating refuses that.
    """
    periods = _periods_to_check(before)
    if not periods:
        return []
    invoiced = _invoiced(since=min(period.starts_at for period in periods))
    used = [quantity for period in periods for quantity in quantities_of(period)]
    prices = prices_for(used)
    owed: dict[_Key, int] = defaultdict(int)
    named: dict[_Key, Quantity] = {}
    for quantity in used:
        key = _key(quantity)
        owed[key] += quantity.units
        named[key] = quantity
    late = []
    for key, quantity in named.items():
        book = prices.get(quantity.price_version_id)
        model_prices = book.prices.get(quantity.model) if book else None
        if model_prices and model_prices.of(quantity.meter, quantity.service_tier) == 0:
            continue  # never invoiced, so never late
        units = owed[key] - invoiced.get(key, 0)
        if units:
            late.append(replace(quantity, units=units))
    return late


def _periods_to_check(before: datetime) -> list[Period]:
    closed = list(
        BillingPeriod.objects.filter(ends_at__lte=before, ends_at__gt=before - LATE_WINDOW)
        .order_by("starts_at")
        .values_list("starts_at", "ends_at", "follows_at")
    )
    periods = [Period(starts_at, ends_at, is_late=True) for starts_at, ends_at, _ in closed]
    if closed and closed[0][2] is None:
        periods = _months_before(closed[0][0]) + periods
    return periods


def _months_before(first_start: datetime) -> list[Period]:
    """Months before the first period that turned out to have usage after all."""
    first_usage = first_usage_at()
    months: list[Period] = []
    if first_usage is None:
        return months
    start = max(month_of(first_usage), month_of(first_start - LATE_WINDOW))
    while start < first_start:
        end = min(month_after(start), first_start)
        months.append(Period(start, end, is_late=True))
        start = end
    return months


def _invoiced(since: datetime) -> dict[_Key, int]:
    rows = (
        InvoiceLine.objects.filter(period_start__gte=since)
        .order_by()
        .values_list(
            "period_start", "period_end", "model", "service_tier", "meter", "price_version_id"
        )
        .annotate(units=Sum("quantity"))
    )
    return {_Key(*row[:6]): int(row[6]) for row in rows}


def _key(quantity: Quantity) -> _Key:
    period = quantity.period
    return _Key(
        period.starts_at,
        period.ends_at,
        quantity.model,
        quantity.service_tier,
        quantity.meter,
        quantity.price_version_id,
    )
