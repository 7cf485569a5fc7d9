"""Reads of invoices for the portal, the console and the control API.

Each needs the tenant's door open. Amounts are integers in minor units of `currency`; unit prices
are pico. Edges turn both to text with `kernel.money`.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.credits.draw_for_invoice import CreditLine, would_draw
from billing.invoicing.account import whole
from billing.invoicing.close import describe, open_period, rate_open
from billing.invoicing.credit_lines import CREDIT, payable
from billing.invoicing.models import Invoice, InvoiceLine
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
    lines: tuple[LineView, ...] = ()


@dataclass(frozen=True, slots=True)
class UpcomingInvoice:
    """What the running period owes so far: the invoice that closing it now would give."""

    period_start: datetime
    period_end: datetime
    currency: str
    total_minor: int
    lines: tuple[LineView, ...]
    content_hash: str


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
    """The open period rated up to `at` (now) by the function that will rate the final invoice.

    None when `at` is not inside the open period.
    """
    until = at or clock.now()
    ours = organisation()
    period = open_period(ours)
    if until <= period.starts_at:
        return None
    rated = rate_open(period, until, ours.currency)
    credit = would_draw(currency=rated.currency, ends_at=until, lines=payable(rated.lines))
    return UpcomingInvoice(
        period_start=period.starts_at,
        period_end=until,
        currency=rated.currency,
        total_minor=rated.total_minor + sum(line.amount_minor for line in credit),
        content_hash=rated.content_hash,
        lines=tuple(
            LineView(
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
            for line in rated.lines
        )
        + tuple(_upcoming_credit(line, period.starts_at, until) for line in credit),
    )


def _upcoming_credit(line: CreditLine, starts_at: datetime, until: datetime) -> LineView:
    return LineView(
        uid="",
        model="",
        service_tier="standard",
        meter=CREDIT,
        description=line.description,
        quantity=0,
        unit_price_pico=None,
        price_version_id=None,
        amount_minor=line.amount_minor,
        period_start=starts_at,
        period_end=until,
        is_late=False,
        kind=InvoiceLine.Kind.CREDIT,
        credit_grant_id=line.grant_id,
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
        lines=lines,
    )
