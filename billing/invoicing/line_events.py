"""From a line of an invoice to the events it adds up from, and from a request to its lines.

The rule. When a period is closed, PostgreSQL's snapshot says which usage had arrived
(`metering.arrivals`), and the invoice is of that usage: it bills every event from before the end of
its period that had arrived by then, less those that the close before it had billed in the same
sense. So an event is billed by one close. Of those, a line has the events that its price is found
for, by the functions that rated them: of a plain price those of its period, model, tier and price
version that its entry matches; of an entry with tiers all that it matched in the calendar month. A
late line therefore has exactly the events that arrived after their period was closed.

An event that adds nothing to the line's meter (a request without output, of output tokens) is not
one of its events. So the events of a line add up to its quantity, and an event's units of a meter
are in one line of one invoice.

Lines without a quantity of the product's own meters have none: what a contract or credit says, what
is counted from events of elsewhere, and an adjustment that only amounts moved in. If a contract was
agreed on afterwards for a time that was invoiced, its events are told as it is now; `agrees` then
says that they do not add up.

Lines of an interim invoice are of its period's usage that had arrived when it was made, by the
snapshot that it keeps itself. The invoice of the period has the same events again, with those that
came since: it takes the interim invoice back in one sum. A request is told the line of its period's
invoice; while there is none, that of the first interim invoice that counted it.

Needs the tenant's door.

Does not know archived days: `metering.counted_events` refuses them with
`events_archived`. A line of an invoice from before snapshots were kept is told by instants; then
`is_exact` is false, and `agrees` says the same.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.invoicing.usage import UsageReader
from billing.pricing.contract_queries import contracts_between
from billing.rating.resolve import Resolver
from billing.rating.values import Period, Quantity, month_of
from meterplane.kernel.errors import CallerError
from meterplane.metering import counted_events
from meterplane.metering.arrivals import Reading
from meterplane.metering.counted_events import Before, Counter, Pinned, Slice
from meterplane.metering.queries import RequestRow

COUNTERS: dict[str, Counter] = {
    "input_tokens": "tokens_in",
    "output_tokens": "tokens_out",
    "requests": "requests",
}
_OF_USAGE = (InvoiceLine.Kind.USAGE, InvoiceLine.Kind.ADJUSTMENT)


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
    """What a line's events are, as the rule says; None for a line that has none."""
    counter = COUNTERS.get(line.meter)
    if counter is None or line.kind not in _OF_USAGE or line.quantity <= 0:
        return None
    starts_at = _starts_at(line)
    told = _Told(Period(starts_at, line.period_end, line.is_late), invoice.currency)
    before = _before(invoice)
    if before is not None and before.until <= starts_at:
        before = None
    parts = tuple(pinned for quantity, pinned in told.pinned if told.is_of(line, quantity))
    return Slice(parts, counter, reading_of(invoice), before)


class _Told:
    """Usage of a period with the prices it is found at, by the functions that rate it."""

    def __init__(self, period: Period, currency: str) -> None:
        contracts = contracts_between(period.starts_at, period.ends_at)
        reader = UsageReader(contracts)
        self.pinned = list(reader.pinned_in(period))
        prices = reader.prices_for(quantity for quantity, _ in self.pinned)
        self._resolver = Resolver(prices, {each.id: each for each in contracts}, currency)

    def is_of(self, line: InvoiceLine, quantity: Quantity) -> bool:
        """Whether the quantity is part of the line."""
        if quantity.meter != line.meter or quantity.contract_id != line.contract_id:
            return False
        entry, unit_price_pico = self._resolver.of(quantity)
        if (None if entry is None else entry.id) != line.entry_id:
            return False
        if entry is not None and unit_price_pico is None:
            own = entry.contract_id is not None
            return line.price_version_id == (None if own else quantity.price_version_id)
        return (quantity.model, quantity.service_tier, quantity.price_version_id) == (
            line.model,
            line.service_tier,
            line.price_version_id,
        )


def reading_of(made: BillingPeriod | Invoice) -> Reading:
    """What had arrived when a period was closed, or an invoice made."""
    if isinstance(made, BillingPeriod):
        return Reading(made.usage_seen_at or made.closed_at, made.usage_snapshot)
    if made.period is not None:
        return reading_of(made.period)
    return Reading(made.usage_seen_at or made.created_at, made.usage_snapshot)


def billed_on(row: RequestRow) -> BilledOn:
    """The lines a request is billed on: those of the first invoice that was made of its period
    after it had arrived."""
    closes = BillingPeriod.objects.filter(ends_at__gt=row.event_at).order_by("ends_at")
    for period in closes:
        if counted_events.is_counted(row.request_id, reading_of(period)):
            invoice = Invoice.objects.filter(period=period).first()
            return BilledOn(_lines(row, invoice) if invoice else (), period.closed_at)
    interims = Invoice.objects.filter(
        kind=Invoice.Kind.INTERIM, period_start__lte=row.event_at, period_end__gt=row.event_at
    )
    for interim in interims.order_by("period_end"):
        if counted_events.is_counted(row.request_id, reading_of(interim)):
            return BilledOn(_lines(row, interim), None)
    return BilledOn((), None)


def _lines(row: RequestRow, invoice: Invoice) -> tuple[BilledLine, ...]:
    units = {meter: getattr(row, counter) for meter, counter in COUNTERS.items()}
    lines = list(
        InvoiceLine.objects.filter(
            invoice=invoice,
            period_end__gt=row.event_at,
            kind__in=_OF_USAGE,
            meter__in=[meter for meter, count in units.items() if count],
        )
        .select_related("invoice")
        .order_by("position")
    )
    if not lines:
        return ()
    instant = Period(row.event_at, row.event_at + timedelta(microseconds=1))
    told = _Told(instant, lines[0].invoice.currency)
    quantities = [quantity for quantity, pinned in told.pinned if _is_in(row, pinned)]
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
        for line in lines
        if _starts_at(line) <= row.event_at
        and any(told.is_of(line, quantity) for quantity in quantities)
    )


def _is_in(row: RequestRow, pinned: Pinned) -> bool:
    """Of events of its instant."""
    told = (row.model, row.service_tier, row.price_version_id)
    is_pinned = told == (pinned.model, pinned.service_tier, pinned.price_version_id)
    return is_pinned and all(getattr(row, name) == value for name, value in pinned.served)


def _starts_at(line: InvoiceLine) -> datetime:
    """Tiers count by the calendar month, whichever part of it a line names."""
    return line.period_start if line.unit_price_pico is not None else month_of(line.period_start)


def _before(invoice: Invoice) -> Before | None:
    before = BillingPeriod.objects.filter(ends_at=invoice.period_start).first()
    return Before(reading_of(before), before.ends_at) if before is not None else None
