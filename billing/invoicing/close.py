"""Close billing periods: rate what was used and write down what is owed, once.

A period is a calendar month (UTC, half-open) or its beginning, when it is closed early. The first
one starts with the month of the tenant's first usage or creation, whichever is earlier.

Guarantees: the same call again, or at the same time elsewhere, gives the same invoices. A lock per
tenant makes that cheap; the chain of periods (see `models`) makes it true. A period, its invoice
and its lines commit together or not at all. Usage that comes later is not lost: it is a line of the
next invoice, naming its own period (`account`).

Does not know the payment provider: an invoice made here is a draft to be collected.

An empty period is recorded without an invoice: a customer who used nothing gets no paper, no number
is spent, and the next period still starts where this one ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from billing.credits.hold import balance_changed, settle
from billing.invoicing.account import owing_now
from billing.invoicing.credit_lines import credit_lines
from billing.invoicing.interim_lines import (
    Interim,
    billed_already,
    interim_lines,
    numbered_interims,
)
from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.invoicing.taxation import record_taxes, taxes_now
from billing.invoicing.usage import month_after, month_of
from billing.rating.rate import RatedLine, RatedPeriod, rate
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import ensure
from meterplane.metering import arrivals
from meterplane.metering.queries import first_month_used
from tenants.models import Organisation
from tenants.queries import organisation
from tenants.scoping import tenant_scope
from tenants.synthetic import is_synthetic

DESCRIPTION_CHARS_MAX = 500  # the payment provider takes no more
MONTHS_PER_CALL_MAX = 120  # ten years: more is a wrong date, not a late close


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """Where the next period starts, and where its predecessor ended, if there is one."""

    starts_at: datetime
    follows_at: datetime | None


def close_period(tenant_id: UUID, until: datetime) -> Invoice | None:
    """Close every month that ended by `until`, and the running one up to it.

    Returns the invoice of the period ending at `until`; None if that period owed nothing, if
    nothing is open before `until`, or of an organisation that is our own. Raises `CallerError`
    `period_not_over` for an instant to come, `period_already_closed` for one inside a closed
    period, and `period_invoiced_beyond` where an interim invoice bills usage after it.
    """
    if until.tzinfo is None or until > clock.now():
        raise CallerError(
            "period_not_over",
            "A period can be closed up to the present, not beyond.",
            field="until",
        )
    for _ in range(MONTHS_PER_CALL_MAX):
        with tenant_scope(tenant_id):
            ours = organisation()
            if is_synthetic(ours):
                return None
            one_closer_at_a_time(tenant_id)
            period = open_period(ours)
            if period.starts_at >= until:
                return _closed_at(until, period)
            ends_at = min(until, month_after(period.starts_at))
            invoice = _close(ours, period, ends_at)
            balance_changed(tenant_id)
            if ends_at == until:
                return invoice
    raise CallerError(
        "period_too_long",
        f"More than {MONTHS_PER_CALL_MAX} months are open; close them in parts.",
        field="until",
    )


def open_period(ours: Organisation | None = None) -> OpenPeriod:
    """The period that is running. Needs the tenant's door; `ours` is who it is, if it was read."""
    ends = BillingPeriod.objects.order_by("-ends_at").values_list("ends_at", flat=True)
    last_end = ends.first()
    if last_end is not None:
        return OpenPeriod(last_end, last_end)
    began = (ours or organisation()).created_at
    return OpenPeriod(month_of(min(began, first_month_used() or began)), None)


def rate_open(period: OpenPeriod, until: datetime, currency: str) -> RatedPeriod:
    """What the open period owes up to `until`, late usage of closed ones included.

    The same function gives the upcoming invoice and the final one. Needs the tenant's door.
    """
    facts = owing_now(period.starts_at, until, follows=period.follows_at is not None)
    return rate(facts.quantities, facts.prices, currency, facts.account)


def describe(line: RatedLine) -> str:
    """A line's text on the invoice; where its numbers are that long, its beginning."""
    is_plain = line.unit_price_pico is not None
    text = f"{line.model if is_plain else line.display_name}: {line.explanation}"
    if line.period.is_late:
        starts_on, ends_on = line.period.starts_at.date(), line.period.ends_at.date()
        text += f" (used from {starts_on} until {ends_on}, arrived later)"
    return text if len(text) <= DESCRIPTION_CHARS_MAX else f"{text[: DESCRIPTION_CHARS_MAX - 3]}..."


def _close(ours: Organisation, period: OpenPeriod, ends_at: datetime) -> Invoice | None:
    interims = numbered_interims(ours.id, period.starts_at)
    if interims and interims[-1].ends_at >= ends_at:
        last = interims[-1]
        raise CallerError(
            "period_invoiced_beyond",
            f"Interim invoice {last.number} bills usage until {last.ends_at:%Y-%m-%d %H:%M:%S} UTC:"
            " close later than that.",
            status=409,
            field="until",
        )
    seen = arrivals.hold()  # before usage is read: a line's events are those that had arrived
    rated = rate_open(period, ends_at, ours.currency)
    ensure(
        rated.total_minor == sum(line.amount_minor for line in rated.lines),
        "the lines of an invoice add up to its total",
    )
    closed = BillingPeriod.objects.create(
        tenant_id=ours.id,
        starts_at=period.starts_at,
        ends_at=ends_at,
        follows_at=period.follows_at,
        content_hash=rated.content_hash,
        usage_seen_at=seen.seen_at,
        usage_snapshot=seen.snapshot,
    )
    arrivals.settle(ends_at)
    settle(ends_at)
    if not rated.lines and not interims:
        return None
    bill = Bill(ours.id, closed.starts_at, closed.ends_at, ours.currency, rated.lines, interims)
    return write_invoice(bill, content_hash=rated.content_hash, period=closed)


@dataclass(frozen=True, slots=True)
class Bill:
    """What an invoice is made of: rated lines, and the interim invoices that it takes back."""

    tenant_id: UUID
    starts_at: datetime
    ends_at: datetime
    currency: str
    rated: Sequence[RatedLine]
    interims: Sequence[Interim]


def write_invoice(bill: Bill, **own: Any) -> Invoice:
    """The draft of a bill, with its credit and its taxes; `own` are columns of the kind that it is.

    Needs the tenant's door and its turn to close, and numbers for the interim invoices.
    """
    invoice_id = uuid7()
    lines = _lines(invoice_id, bill)
    subtotal_minor = sum(line.amount_minor for line in lines)
    taken_back = {each.id: each.taxable_minor for each in bill.interims}
    taxes, note = taxes_now(
        {
            line.position: taken_back[line.interim_id] if line.interim_id else line.amount_minor
            for line in lines
        },
        {each.id: f"already {each.note}" for each in bill.interims},
        subtotal_minor,
    )
    invoice: Invoice = Invoice.objects.create(
        id=invoice_id,
        tenant_id=bill.tenant_id,
        period_start=bill.starts_at,
        period_end=bill.ends_at,
        currency=bill.currency,
        total_minor=subtotal_minor + taxes.exclusive_minor,
        tax_exclusive_minor=taxes.exclusive_minor,
        tax_inclusive_minor=taxes.inclusive_minor,
        tax_note=note,
        taxed_by=taxes.taxed_by,
        **own,
    )
    record_taxes(invoice, taxes)
    InvoiceLine.objects.bulk_create(lines)
    return invoice


def _lines(invoice_id: UUID, bill: Bill) -> list[InvoiceLine]:
    """What was rated, what interim invoices billed of it, and what credit gives back and pays of
    the rest."""
    lines = [
        InvoiceLine(
            tenant_id=bill.tenant_id,
            invoice_id=invoice_id,
            kind=line.kind,
            model=line.model,
            service_tier=line.service_tier,
            meter=line.meter,
            display_name=line.display_name,
            description=describe(line),
            quantity=line.quantity,
            unit_price_pico=line.unit_price_pico,
            price_version_id=line.price_version_id,
            entry_id=line.entry_id,
            contract_id=line.contract_id,
            price_model=line.price_model,
            breakdown=line.breakdown,
            amount_minor=line.amount_minor,
            period_start=line.period.starts_at,
            period_end=line.period.ends_at,
            is_late=line.period.is_late,
        )
        for line in bill.rated
    ]
    span = (bill.starts_at, bill.ends_at)
    lines += interim_lines(bill.tenant_id, invoice_id, *span, bill.interims)
    lines += credit_lines(
        bill.tenant_id,
        invoice_id,
        *span,
        bill.currency,
        bill.rated,
        billed_already(bill.interims),
    )
    for position, line in enumerate(lines, start=1):
        line.position = position
    return lines


def _closed_at(until: datetime, period: OpenPeriod) -> Invoice | None:
    """What a repeated call answers. An instant before the first period has nothing to close."""
    if period.follows_at is None or until == period.follows_at:
        return Invoice.objects.filter(period__ends_at=until).first()
    if BillingPeriod.objects.filter(ends_at=until).exists():
        return Invoice.objects.filter(period__ends_at=until).first()
    if BillingPeriod.objects.filter(starts_at__lt=until).exists():
        raise CallerError(
            "period_already_closed",
            f"Usage is closed up to {period.starts_at:%Y-%m-%d %H:%M:%S} UTC already.",
            status=409,
            field="until",
        )
    return None


def one_closer_at_a_time(tenant_id: UUID) -> None:
    """Until the transaction ends, nobody else closes a period of the tenant's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"invoicing.close:{tenant_id}"],
        )
