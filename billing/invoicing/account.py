"""Everything that decides what a tenant owes: usage of its periods, prices, contracts, and what
invoices say so far.

What is owed late is a difference of two facts: what is known now of a closed period, and what
stands on invoice lines that name it. So it needs no marker, and a crash, a repeat or a second late
arrival cannot bill twice or drop any. Rating takes the difference (`rating`); here the facts are
read. A voided invoice's lines count as invoiced: to forgive is one act, to bill again is another.
Interim invoices and the lines that take them back are no part of it: the invoice of their period
has all of the period's lines.

Needs the tenant's door open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.invoicing.usage import UsageReader, month_after, month_of
from billing.pricing.book import PublishedBook
from billing.pricing.contract_queries import contracts_between, had_contract
from billing.rating.values import Account, Billed, Period, Quantity
from meterplane.kernel.decimals import EXACT
from meterplane.metering.arrivals import none_is_late
from meterplane.metering.queries import first_month_used

# A journal may sit on a dead host's disk for a while. 400 days is 14 closed months, two reads each.
LATE_WINDOW = timedelta(days=400)
_TOLD_APART = (
    "period_start", "period_end", "kind", "model", "meter", "service_tier", "price_version_id",
    "entry_id", "contract_id", "unit_price_pico", "display_name",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owing:
    """What `rating.rate` takes, but for the currency."""

    quantities: list[Quantity]
    prices: dict[UUID, PublishedBook]
    account: Account


def owing_now(starts_at: datetime, until: datetime, *, follows: bool) -> Owing:
    """`owing` of the open period, which `follows` a closed one or is the first.

    Closed periods are read only where something may have come to them since the last of them was
    closed: usage that arrived late, a contract, or declared meters, which count on by themselves.
    Of all others the difference is nothing, and it would be asked of 400 days of usage.
    """
    if not follows:
        return _owing((), starts_at, until)
    if none_is_late(starts_at) and not had_contract(until):
        reader = UsageReader()
        if reader.is_plain_between(month_of(starts_at - LATE_WINDOW), until):
            return _owing((), starts_at, until, reader)
    return owing(starts_at, until)


def owing(starts_at: datetime, until: datetime) -> Owing:
    """All that decides what the period [starts_at, until) owes, and what closed ones owe late.

    Where months of it were not closed yet, each is a period of its own: so will its invoice be.
    `starts_at` may be that of a closed period: then it is as it was to be closed, at what is known
    now, with what later invoices say left out.
    """
    return _owing(_closed_periods(starts_at), starts_at, until)


def _owing(
    closed: Sequence[Period],
    starts_at: datetime,
    until: datetime,
    reader: UsageReader | None = None,
) -> Owing:
    """`reader` where who it is of has no contract."""
    periods = (*closed, *(_by_month(starts_at, until) or [Period(starts_at, until)]))
    reader = reader or UsageReader(contracts_between(periods[0].starts_at, until))
    quantities = [each for period in periods for each in reader.quantities_of(period)]
    account = Account(
        periods,
        tuple(_billed(periods[0].starts_at, starts_at)) if closed else (),
        {each.id: each for each in reader.contracts},
    )
    return Owing(quantities, reader.prices_for(quantities), account)


def _closed_periods(before: datetime) -> list[Period]:
    """Whole months: tiers count by them."""
    closed = list(
        BillingPeriod.objects.filter(
            ends_at__lte=before, ends_at__gt=month_of(before - LATE_WINDOW)
        )
        .order_by("starts_at")
        .values_list("starts_at", "ends_at", "follows_at")
    )
    periods = [Period(starts_at, ends_at, is_late=True) for starts_at, ends_at, _ in closed]
    if closed and closed[0][2] is None:
        periods = _months_before(closed[0][0]) + periods
    return periods


def _months_before(first_start: datetime) -> list[Period]:
    """Months before the first period that turned out to have usage after all."""
    first_month = first_month_used()
    if first_month is None:
        return []
    start = max(first_month, month_of(first_start - LATE_WINDOW))
    return _by_month(start, first_start, is_late=True)


def _by_month(start: datetime, until: datetime, *, is_late: bool = False) -> list[Period]:
    months: list[Period] = []
    while start < until:
        end = min(month_after(start), until)
        months.append(Period(start, end, is_late))
        start = end
    return months


def _billed(since: datetime, before: datetime) -> list[Billed]:
    """What invoices of periods that ended by `before` say of periods from `since` on."""
    rows = (
        InvoiceLine.objects.filter(period_start__gte=since, invoice__period_end__lte=before)
        .exclude(invoice__kind=Invoice.Kind.INTERIM)
        # who pays, and when, is no part of what was owed
        .exclude(kind__in=[InvoiceLine.Kind.CREDIT, InvoiceLine.Kind.INTERIM])
        .order_by()
        .values_list(*_TOLD_APART)
        .annotate(quantity=Sum("quantity"), amount=Sum("amount_minor"))
    )
    return [
        Billed(
            period=Period(row[0], row[1], is_late=True),
            kind=row[2],
            model=row[3],
            meter=row[4],
            service_tier=row[5],
            price_version_id=row[6],
            entry_id=row[7],
            contract_id=row[8],
            unit_price_pico=row[9],
            display_name=row[10],
            quantity=whole(row[11]),
            amount_minor=int(row[12]),
        )
        for row in rows
    ]


def whole(quantity: Decimal) -> int | Decimal:
    """Whole quantities as integers, others without zeros behind: `Decimal("3.000")` is 3."""
    integer = int(quantity)
    return integer if integer == quantity else quantity.normalize(EXACT)
