"""Reads of invoices for the portal, the console and the control API.

Each needs the tenant's door open. Amounts are integers in minor units of `currency`; unit prices
are pico. Edges turn both to text with `kernel.money`.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.invoicing.account import whole
from billing.invoicing.close import describe, open_period, rate_open
from billing.invoicing.credit_lines import CreditPart, expected_credit
from billing.invoicing.interim_lines import Interim, billed_already, interims_of
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.tax import TaxAmount
from billing.invoicing.taxation import TakenBack, taxes_now
from billing.rating.rate import RatedLine
from billing.rating.values import METERS
from meterplane.kernel import clock
from tenants.queries import organisation

PAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class LineView:
    """One line. `uid` is empty for a line that is not invoiced yet.

    A plain unit price has a `unit_price_pico`; an entry that is more has a `price_model` and a
    `breakdown` (see `rating.tiered`), a discount, credit and the like neither. A quantity is
    a fraction only of a declared meter.
    """

    uid: str
    model: str
    service_tier: str
    meter: str
    description: str
    quantity: int | Decimal
    unit_price_pico: int | None
    price_version_id: UUID | None
    amount_minor: int
    period_start: datetime
    period_end: datetime
    is_late: bool
    kind: str = "usage"
    display_name: str = ""
    entry_id: UUID | None = None
    contract_id: UUID | None = None
    price_model: dict[str, Any] | None = None
    breakdown: dict[str, Any] | None = None
    credit_grant_id: UUID | None = None
    interim_id: UUID | None = None

    @property
    def has_events(self) -> bool:
        """Whether requests stand behind it (`line_events`)."""
        return self.kind in ("usage", "adjustment") and self.meter in METERS and self.quantity > 0

    @property
    def is_plain(self) -> bool:
        """Whether quantity times unit price is all there is to it."""
        return self.unit_price_pico is not None


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """One invoice; `number` is empty while it is a draft. Lines only where they were asked for."""

    id: UUID
    number: str
    status: str
    currency: str
    total_minor: int
    period_start: datetime
    period_end: datetime
    created_at: datetime
    finalised_at: datetime | None
    paid_at: datetime | None
    hosted_url: str
    collection_state: str
    collection_note: str
    content_hash: str
    kind: str = "period"
    lines: tuple[LineView, ...] = ()


@dataclass(frozen=True, slots=True)
class TaxView:
    """One tax of an invoice, or what of it goes back."""

    name: str
    label: str
    percentage: str
    mode: str
    country: str
    taxable_minor: int
    amount_minor: int
    note: str = ""
    id: UUID | None = None  # of an invoice that was made


@dataclass(frozen=True, slots=True)
class UpcomingInvoice:
    """What the running period owes so far: the invoice that closing it now would give.

    `used_minor` is what was used, credit aside; `already_invoiced_minor` is what interim invoices
    billed of it, and `credit_minor` what credit is expected to pay of the rest, less what comes
    back of earlier months (below zero, as its lines). What is left is `subtotal_minor`; with the
    taxes on top it is `total_minor`. `tax_note` says why there are none.
    """

    period_start: datetime
    period_end: datetime
    currency: str
    used_minor: int
    credit_minor: int
    tax_exclusive_minor: int
    tax_inclusive_minor: int
    taxes: tuple[TaxView, ...]
    tax_note: str
    lines: tuple[LineView, ...]
    content_hash: str
    already_invoiced_minor: int = 0

    @property
    def subtotal_minor(self) -> int:
        return self.used_minor - self.already_invoiced_minor + self.credit_minor

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor + self.tax_exclusive_minor


def list_invoices(limit: int = PAGE_MAX, before: datetime | None = None) -> list[InvoiceView]:
    """Newest period first, without lines. `before` pages by `period_end`."""
    invoices = Invoice.objects.order_by("-period_end")
    if before is not None:
        invoices = invoices.filter(period_end__lt=before)
    return [_view(invoice) for invoice in invoices[: min(limit, PAGE_MAX)]]


def invoice_with_lines(invoice_id: UUID) -> InvoiceView | None:
    """One invoice with its lines in order; None if the tenant has no such invoice."""
    invoice = Invoice.objects.filter(id=invoice_id).first()
    if invoice is None:
        return None
    lines = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
    return _view(invoice, tuple(_line(line) for line in lines))


def upcoming_invoice(at: datetime | None = None) -> UpcomingInvoice | None:
    """The open period up to `at` (now), by the functions that will make the final invoice.

    Writes nothing. None when `at` is not inside the open period.
    """
    until = at or clock.now()
    ours = organisation()
    period = open_period(ours)
    if until <= period.starts_at:
        return None
    rated = rate_open(period, until, ours.currency)
    interims = interims_of(period.starts_at)
    credit = expected_credit(
        rated.currency, period.starts_at, until, rated.lines, billed_already(interims)
    )
    amounts = [line.amount_minor for line in rated.lines]
    amounts += [each.taxable_minor for each in interims]
    amounts += [part.amount_minor for part in credit]
    billed_minor = sum(each.billed_minor for each in interims)
    credit_minor = sum(part.amount_minor for part in credit)
    taxes, note = taxes_now(
        dict(enumerate(amounts, start=1)),
        {each.id: f"already {each.note}" for each in interims},
        rated.total_minor - billed_minor + credit_minor,
    )
    return UpcomingInvoice(
        period_start=period.starts_at,
        period_end=until,
        currency=rated.currency,
        used_minor=rated.total_minor,
        already_invoiced_minor=billed_minor,
        credit_minor=credit_minor,
        tax_exclusive_minor=taxes.exclusive_minor,
        tax_inclusive_minor=taxes.inclusive_minor,
        taxes=tuple(
            [_upcoming_tax(each) for each in taxes.own.taxes]
            + [_upcoming_tax(each, each.note) for each in taxes.taken_back]
        ),
        tax_note=note,
        content_hash=rated.content_hash,
        lines=tuple(_upcoming_line(line) for line in rated.lines)
        + tuple(_taken_back(each, period.starts_at, until) for each in interims)
        + tuple(_upcoming_credit(part) for part in credit),
    )


def _upcoming_line(line: RatedLine) -> LineView:
    return LineView(
        uid="",
        model=line.model,
        service_tier=line.service_tier,
        meter=line.meter,
        description=describe(line),
        quantity=line.quantity,
        unit_price_pico=line.unit_price_pico,
        price_version_id=line.price_version_id,
        amount_minor=line.amount_minor,
        period_start=line.period.starts_at,
        period_end=line.period.ends_at,
        is_late=line.period.is_late,
        kind=line.kind,
        display_name=line.display_name,
        entry_id=line.entry_id,
        contract_id=line.contract_id,
        price_model=line.price_model,
        breakdown=line.breakdown,
    )


def _upcoming_tax(each: TaxAmount[int] | TakenBack, note: str = "") -> TaxView:
    rate = each.rate
    percentage = f"{rate.percentage.normalize():f}"
    return TaxView(
        name=rate.name,
        label=f"{rate.name} {percentage} %",
        percentage=percentage,
        mode=rate.mode,
        country=rate.country,
        taxable_minor=each.taxable_minor,
        amount_minor=each.amount_minor,
        note=note,
    )


def _upcoming_credit(part: CreditPart) -> LineView:
    return LineView(
        uid="",
        model="",
        service_tier="standard",
        meter=part.meter,
        description=part.description,
        quantity=0,
        unit_price_pico=None,
        price_version_id=None,
        amount_minor=part.amount_minor,
        period_start=part.period_start,
        period_end=part.period_end,
        is_late=part.is_late,
        kind=InvoiceLine.Kind.CREDIT,
        credit_grant_id=part.grant_id,
    )


def _taken_back(interim: Interim, starts_at: datetime, until: datetime) -> LineView:
    return LineView(
        uid="",
        model="",
        service_tier="standard",
        meter="",
        description=interim.description,
        quantity=0,
        unit_price_pico=None,
        price_version_id=None,
        amount_minor=-interim.billed_minor,
        period_start=starts_at,
        period_end=until,
        is_late=False,
        kind=InvoiceLine.Kind.INTERIM,
        interim_id=interim.id,
    )


def _line(line: InvoiceLine) -> LineView:
    return LineView(
        uid=str(line.id),
        model=line.model,
        service_tier=line.service_tier,
        meter=line.meter,
        description=line.description,
        quantity=whole(line.quantity),
        unit_price_pico=line.unit_price_pico,
        price_version_id=line.price_version_id,
        amount_minor=line.amount_minor,
        period_start=line.period_start,
        period_end=line.period_end,
        is_late=line.is_late,
        credit_grant_id=line.credit_grant_id,
        interim_id=line.interim_id,
        kind=line.kind,
        display_name=line.display_name,
        entry_id=line.entry_id,
        contract_id=line.contract_id,
        price_model=line.price_model,
        breakdown=line.breakdown,
    )


def _view(invoice: Invoice, lines: tuple[LineView, ...] = ()) -> InvoiceView:
    return InvoiceView(
        id=invoice.id,
        number=invoice.number or "",
        status=invoice.status,
        currency=invoice.currency,
        total_minor=invoice.total_minor,
        period_start=invoice.period_start,
        period_end=invoice.period_end,
        created_at=invoice.created_at,
        finalised_at=invoice.finalised_at,
        paid_at=invoice.paid_at,
        hosted_url=invoice.hosted_url,
        collection_state=invoice.collection_state,
        collection_note=invoice.collection_note,
        content_hash=invoice.content_hash,
        kind=invoice.kind,
        lines=lines,
    )
