"""What an organisation's credit pays of an invoice: lines of their own, below zero.

A credit line names the grant it is drawn from and has no price. It is written with the invoice, so
the total is what is left to pay; zero where credit pays for everything. A credit line above zero is
credit of earlier invoices that comes back, because this one corrects them down (`credit_back`): it
comes back first, and may be drawn by the same invoice.

Closing a period and the invoice to come are the same two steps, one with writes, one without.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.credits.cover import Payable
from billing.credits.draw_for_invoice import described, draw_for_invoice, would_draw
from billing.credits.turns import one_act_at_a_time
from billing.invoicing.credit_back import GivenBack, give_back, to_give_back
from billing.invoicing.models import InvoiceLine
from billing.invoicing.usage import month_after, month_of
from billing.rating.rate import RatedLine

CREDIT = "credit"  # a credit line's meter
GIVEN_BACK = "credit_given_back"


@dataclass(frozen=True, slots=True)
class CreditPart:
    """A credit line of an invoice, or of the one to come."""

    grant_id: UUID
    meter: str
    description: str
    amount_minor: int
    period_start: datetime
    period_end: datetime
    is_late: bool = False


def credit_lines(
    tenant_id: UUID,
    invoice_id: UUID,
    starts_at: datetime,
    ends_at: datetime,
    currency: str,
    lines: Sequence[RatedLine],
    already: Sequence[Payable],
) -> list[InvoiceLine]:
    """Give back and draw for the invoice of a period; its credit lines, without positions yet.

    `already` is what interim invoices billed of it, below zero.

    Needs the tenant's door, and the invoice in the same transaction.
    """
    back: list[GivenBack] = []
    if _corrects_down(lines, already):
        one_act_at_a_time(tenant_id)
        back = to_give_back(lines, already, starts_at)
        give_back(tenant_id, invoice_id, back)
    drawn = draw_for_invoice(
        tenant_id=tenant_id,
        invoice_id=invoice_id,
        currency=currency,
        ends_at=ends_at,
        lines=_payable(lines, back, already),
    )
    parts = _comes_back(back, starts_at) + [
        CreditPart(
            line.grant_id, CREDIT, line.description, line.amount_minor, starts_at,
            ends_at,
        )
        for line in drawn
    ]  # fmt: skip
    return [
        InvoiceLine(
            tenant_id=tenant_id,
            invoice_id=invoice_id,
            kind=InvoiceLine.Kind.CREDIT,
            credit_grant_id=part.grant_id,
            model="",
            meter=part.meter,
            description=part.description,
            quantity=0,
            unit_price_pico=None,
            price_version=None,
            amount_minor=part.amount_minor,
            period_start=part.period_start,
            period_end=part.period_end,
            is_late=part.is_late,
        )
        for part in parts
    ]


def expected_credit(
    currency: str,
    starts_at: datetime,
    ends_at: datetime,
    lines: Sequence[RatedLine],
    already: Sequence[Payable],
) -> list[CreditPart]:
    """The credit lines that closing [starts_at, ends_at) now would give. Writes nothing."""
    back = to_give_back(lines, already, starts_at) if _corrects_down(lines, already) else []
    by_grant: dict[UUID, int] = defaultdict(int)
    for each in back:
        for row, amount_minor in each.parts:
            by_grant[row.id] += amount_minor
    drawn = would_draw(
        currency=currency,
        ends_at=ends_at,
        lines=_payable(lines, back, already),
        given_back=by_grant,
    )
    return _comes_back(back, starts_at) + [
        CreditPart(line.grant_id, CREDIT, line.description, line.amount_minor, starts_at, ends_at)
        for line in drawn
    ]


def _corrects_down(lines: Iterable[RatedLine], already: Sequence[Payable]) -> bool:
    """Hardly any invoice does: of the others nothing more is asked."""
    return bool(already) or any(line.amount_minor < 0 for line in lines)


def _payable(
    lines: Iterable[RatedLine], back: Iterable[GivenBack], already: Iterable[Payable]
) -> list[Payable]:
    """Rated lines as credit sees them, less what is billed already; what comes back makes up for
    what is corrected."""
    rated = [Payable(line.model, line.meter, line.amount_minor) for line in lines]
    return [*rated, *already, *(line for each in back for line in each.lines)]


def _comes_back(back: Iterable[GivenBack], starts_at: datetime) -> list[CreditPart]:
    """A line for each month and grant, whichever invoices drew it."""
    sums: dict[tuple[datetime, UUID], int] = defaultdict(int)
    named = {}
    for each in back:
        for row, amount_minor in each.parts:
            sums[each.month, row.id] += amount_minor
            named[row.id] = described(row)
    return [
        CreditPart(
            grant_id,
            GIVEN_BACK,
            f"{named[grant_id]} (given back of {month:%Y-%m}, which costs less)",
            amount_minor,
            month,
            month_after(month),
            is_late=month < month_of(starts_at),
        )
        for (month, grant_id), amount_minor in sums.items()
    ]
