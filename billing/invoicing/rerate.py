"""Rate closed periods again, at what is known today, beside what invoices say. Writes nothing.

Two questions with two answers for each period. *Replay*: with what earlier invoices say, does the
period give the very lines it was closed with? Equal hashes say that nothing came late and nothing
that decides amounts has changed. *Today*: how much of it is not on any invoice, line by line; that
is what the next invoice will carry as late usage and adjustments.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Sum

from billing.invoicing.account import owing
from billing.invoicing.close import describe, open_period
from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.rating.rate import RatedLine, RatedPeriod, rate
from billing.rating.values import month_of
from meterplane.kernel import clock
from tenants.queries import organisation


@dataclass(frozen=True, slots=True)
class Difference:
    """One line that is owed and on no invoice, or on one and not owed."""

    description: str
    kind: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Rerated:
    """A closed period today. `billed_minor` is what any invoice says of it; in a month that was
    closed in parts, differences of tiers and contracts are told with its last one."""

    starts_at: datetime
    ends_at: datetime
    currency: str
    invoice_number: str
    invoiced_minor: int
    replayed_minor: int
    hash_equal: bool
    billed_minor: int
    differences: tuple[Difference, ...]

    @property
    def difference_minor(self) -> int:
        """What the next invoice will add for it."""
        return sum(each.amount_minor for each in self.differences)


def rerate(since: datetime | None = None, until: datetime | None = None) -> list[Rerated]:
    """Closed periods that start in [since, until), the first one first. Needs the tenant's door."""
    closed = BillingPeriod.objects.order_by("starts_at")
    if since is not None:
        closed = closed.filter(starts_at__gte=since)
    if until is not None:
        closed = closed.filter(starts_at__lt=until)
    periods = list(closed)
    if not periods:
        return []
    owed = _owed_by_period(periods)
    invoices = {each.period_id: each for each in Invoice.objects.exclude(period=None)}
    return [_rerated(period, invoices.get(period.id), owed[period.ends_at]) for period in periods]


def rate_again(period: BillingPeriod) -> RatedPeriod:
    """The period as closing it today would rate it, had nothing after it been invoiced."""
    facts = owing(period.starts_at, period.ends_at)
    return rate(facts.quantities, facts.prices, organisation().currency, facts.account)


def _rerated(period: BillingPeriod, invoice: Invoice | None, owed: list[RatedLine]) -> Rerated:
    replayed = rate_again(period)
    lines = InvoiceLine.objects.filter(
        period_start__gte=period.starts_at, period_end__lte=period.ends_at
    )
    return Rerated(
        starts_at=period.starts_at,
        ends_at=period.ends_at,
        currency=organisation().currency,
        invoice_number=(invoice.number or invoice.status) if invoice is not None else "",
        invoiced_minor=invoice.total_minor if invoice is not None else 0,
        replayed_minor=replayed.total_minor,
        hash_equal=replayed.content_hash == period.content_hash,
        billed_minor=lines.aggregate(amount=Sum("amount_minor"))["amount"] or 0,
        differences=tuple(
            Difference(describe(line), line.kind, line.amount_minor) for line in owed
        ),
    )


def _owed_by_period(periods: list[BillingPeriod]) -> dict[datetime, list[RatedLine]]:
    """The late lines of the invoice to come, by the end of the period they belong to.

    A line of a whole month, and of a month that has begun, goes to the last of its periods.
    """
    running = open_period()
    ends_of_month = {month_of(each.starts_at): each.ends_at for each in periods}
    ends = {each.ends_at for each in periods}
    found: dict[datetime, list[RatedLine]] = defaultdict(list)
    facts = owing(running.starts_at, max(clock.now(), running.starts_at))
    rated = rate(facts.quantities, facts.prices, organisation().currency, facts.account)
    for line in rated.lines:
        if line.period.is_late:
            ends_at = line.period.ends_at
            month = ends_of_month.get(month_of(line.period.starts_at))
            place = ends_at if ends_at in ends else month
            if place is not None:
                found[place].append(line)
    return found
