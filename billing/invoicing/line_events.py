"""From a line of an invoice to the events it adds up from, and from a request to its lines.

The rule. A line is of a period, a model, a service tier, a meter and a price version. When a period
is closed, PostgreSQL's snapshot says which usage had arrived (`metering.arrivals`), and all of its
lines are of that usage: so
- a line's events are those of its period that had arrived when its invoice was made, and
- a late line's are those of them that had not arrived when the period before that invoice's was
  closed: each close bills everything that came since the one before it, whatever period it is of.
An event that adds nothing to the line's meter (a request without output, of output tokens) is not
one of its events. So the events of a line add up to its quantity, and an event's units of a meter
are in one line of one invoice.

Needs the tenant's door. Does not know archived days: `metering.counted_events` refuses them with
`events_archived`. A line of an invoice from before snapshots were kept is told by instants; then
`is_exact` is false, and `agrees` says whether its events add up.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from meterplane.kernel.errors import CallerError
from meterplane.metering import counted_events
from meterplane.metering.arrivals import Reading
from meterplane.metering.counted_events import Counter, Slice
from meterplane.metering.queries import RequestRow

COUNTERS: dict[str, Counter] = {
    "input_tokens": "tokens_in",
    "output_tokens": "tokens_out",
    "requests": "requests",
}


@dataclass(frozen=True, slots=True)
class LineSource:
    """A line with what its events are, and what they add up to."""

    line: InvoiceLine
    invoice: Invoice
    part: Slice
    events: int
    units: int

    @property
    def agrees(self) -> bool:
        return self.units == self.line.quantity

    @property
    def is_exact(self) -> bool:
        return self.part.is_exact


@dataclass(frozen=True, slots=True)
class BilledLine:
    """One line that a request is billed on, and what it adds to that line's quantity."""

    invoice_id: UUID
    number: str
    line_id: UUID
    position: int
    description: str
    meter: str
    units: int
    is_late: bool


@dataclass(frozen=True, slots=True)
class BilledOn:
    """The lines of a request. Without lines, `closed_at` tells a request that owed nothing in a
    closed period from one that no invoice was made of yet (None)."""

    lines: tuple[BilledLine, ...]
    closed_at: datetime | None


def line_source(invoice_id: UUID, line_id: UUID) -> LineSource:
    """A line and its events, added up again.

    Raises `CallerError` `line_not_found` (404), `line_not_of_usage` (409) for a line that no events
    stand behind, `events_archived` (409).
    """
    line = (
        InvoiceLine.objects.filter(id=line_id, invoice_id=invoice_id)
        .select_related("invoice__period")
        .first()
    )
    if line is None:
        raise CallerError("line_not_found", "This invoice has no such line.", status=404)
    part = slice_of(line, line.invoice)
    if part is None:
        raise CallerError(
            "line_not_of_usage",
            "No events stand behind this line: it is not a quantity that was metered.",
            status=409,
        )
    found = counted_events.total(part)
    return LineSource(line, line.invoice, part, found.events, found.units)


def slice_of(line: InvoiceLine, invoice: Invoice) -> Slice | None:
    """What a line's events are, as the rule says; None for a line that is not of metered usage."""
    counter = COUNTERS.get(line.meter)
    if counter is None:
        return None
    return Slice(
        start=line.period_start,
        end=line.period_end,
        model=line.model,
        service_tier=line.service_tier,
        price_version_id=line.price_version_id,
        counter=counter,
        counted_by=reading_of(invoice.period),
        after=_reading_before(invoice.period) if line.is_late else None,
    )


def reading_of(period: BillingPeriod) -> Reading:
    """What had arrived when a period was closed."""
    return Reading(period.usage_seen_at or period.closed_at, period.usage_snapshot)


def billed_on(row: RequestRow) -> BilledOn:
    """The lines a request is billed on: those of the first invoice that was made of its period
    after it had arrived."""
    closes = BillingPeriod.objects.filter(ends_at__gt=row.event_at).order_by("ends_at")
    for period in closes:
        if counted_events.is_counted(row.request_id, reading_of(period)):
            return BilledOn(_lines(row, period), period.closed_at)
    return BilledOn((), None)


def _lines(row: RequestRow, period: BillingPeriod) -> tuple[BilledLine, ...]:
    units = {meter: getattr(row, counter) for meter, counter in COUNTERS.items()}
    lines = InvoiceLine.objects.filter(
        invoice__period=period,
        period_start__lte=row.event_at,
        period_end__gt=row.event_at,
        model=row.model,
        service_tier=row.service_tier,
        price_version_id=row.price_version_id,
        meter__in=[meter for meter, count in units.items() if count],
    )
    return tuple(
        BilledLine(
            line.invoice_id,
            line.invoice.number or "",
            line.id,
            line.position,
            line.description,
            line.meter,
            units[line.meter],
            line.is_late,
        )
        for line in lines.select_related("invoice").order_by("position")
    )


def _reading_before(period: BillingPeriod) -> Reading | None:
    before = BillingPeriod.objects.filter(ends_at=period.follows_at).first()
    return reading_of(before) if before is not None else None
