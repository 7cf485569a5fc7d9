"""What an organisation's credit pays of an invoice: lines of their own, below zero.

A credit line names the grant it is drawn from and has no price. It is written with the invoice, so
the total is what is left to pay; zero where credit pays for everything.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from billing.credits.cover import Payable
from billing.credits.draw_for_invoice import draw_for_invoice
from billing.invoicing.models import InvoiceLine
from billing.rating.rate import RatedLine

CREDIT = "credit"  # a credit line's meter


def payable(lines: Iterable[RatedLine]) -> list[Payable]:
    """Rated lines as credit sees them."""
    return [Payable(line.model, line.meter, line.amount_minor) for line in lines]


def drawn_credit(
    tenant_id: UUID,
    invoice_id: UUID,
    starts_at: datetime,
    ends_at: datetime,
    currency: str,
    lines: Iterable[Payable],
) -> list[InvoiceLine]:
    """Draw credit for the invoice of a period; its credit lines, without positions yet.

    Needs the tenant's door, and the invoice in the same transaction.
    """
    drawn = draw_for_invoice(
        tenant_id=tenant_id,
        invoice_id=invoice_id,
        currency=currency,
        ends_at=ends_at,
        lines=lines,
    )
    return [
        InvoiceLine(
            tenant_id=tenant_id,
            invoice_id=invoice_id,
            kind=InvoiceLine.Kind.CREDIT,
            credit_grant_id=line.grant_id,
            model="",
            meter=CREDIT,
            description=line.description,
            quantity=0,
            unit_price_pico=None,
            price_version=None,
            amount_minor=line.amount_minor,
            period_start=starts_at,
            period_end=ends_at,
        )
        for line in drawn
    ]
