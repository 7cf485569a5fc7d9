"""What interim invoices billed of an open period, as an invoice that comes after them sees it.

An invoice has the lines of its whole period, and of each interim invoice before it one line below
zero: what that one billed, but for credit. So a period's invoices add up to what is owed, whatever
tiers, discounts or late usage did in between, and each can be read by itself. The taxes of an
interim invoice are taken back as it bore them, at its own rates (`taxation`). Credit that it drew
stays drawn; only what it did not bill is left to be paid by further credit.

A voided interim invoice is taken back like any other: what is on an invoice counts as invoiced.

Needs the tenant's door.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, Sum

from billing.credits.cover import Payable
from billing.credits.turns import one_act_at_a_time
from billing.invoicing.advance import News, advance, one_numbering_at_a_time
from billing.invoicing.models import Invoice, InvoiceLine, TaxedBy
from meterplane.kernel import clock

_K = InvoiceLine.Kind


@dataclass(frozen=True, slots=True)
class Interim:
    """One interim invoice: what it billed, and what of that credit paid. Above zero, both."""

    id: UUID
    number: str
    ends_at: datetime
    billed_minor: int
    drawn_minor: int
    taxed_by: str = TaxedBy.RATES

    @property
    def taxable_minor(self) -> int:
        """Of the line that takes it back, what is taxed. Taxes at rates are taken back too, and the
        whole period is taxed, but for what credit paid; what Stripe taxed is taxed."""
        return -self.billed_minor if self.taxed_by == TaxedBy.STRIPE else -self.drawn_minor

    @property
    def description(self) -> str:
        """Of the line that takes it back."""
        return f"Already {self.note}, usage until {self.ends_at:%Y-%m-%d %H:%M} UTC"

    @property
    def note(self) -> str:
        """Of each tax that is taken back with it."""
        return f"invoiced in {self.number or 'an interim invoice'}"


def interims_of(starts_at: datetime) -> list[Interim]:
    """Those of the period that starts then, in their order."""
    rows = (
        Invoice.objects.filter(kind=Invoice.Kind.INTERIM, period_start=starts_at)
        .order_by("interim_sequence")
        .values_list("id", "number", "period_end", "taxed_by")
    )
    found = list(rows)
    if not found:  # of nearly everybody, and asked with each look at what is spent
        return []
    lines = (
        InvoiceLine.objects.filter(invoice_id__in=[row_id for row_id, *_ in found])
        .order_by()
        .values_list("invoice_id")
        .annotate(
            billed=Sum("amount_minor", filter=~Q(kind=_K.CREDIT)),
            drawn=Sum("amount_minor", filter=Q(kind=_K.CREDIT)),
        )
    )
    sums = {invoice_id: (int(billed or 0), -int(drawn or 0)) for invoice_id, billed, drawn in lines}
    return [
        Interim(row_id, number or "", ends_at, *sums.get(row_id, (0, 0)), taxed_by)
        for row_id, number, ends_at, taxed_by in found
    ]


def numbered_interims(tenant_id: UUID, starts_at: datetime) -> list[Interim]:
    """The same, for an invoice that is about to name them: those without a number are opened, but
    for one that Stripe has not taxed yet: that is named without.

    Locks in the order of everybody: their rows, the series, credit, and the ledger last.
    """
    rows = Invoice.objects.filter(kind=Invoice.Kind.INTERIM, period_start=starts_at)
    held = list(rows.select_for_update().order_by("interim_sequence"))
    waiting = [each for each in held if not each.is_issued and not each.awaits_taxes]
    if waiting:
        one_numbering_at_a_time(tenant_id)
        one_act_at_a_time(tenant_id)
        for each in waiting:
            advance(each.id, News(Invoice.Status.OPEN, clock.now()))
    return interims_of(starts_at) if held else []


def interim_lines(
    tenant_id: UUID,
    invoice_id: UUID,
    starts_at: datetime,
    ends_at: datetime,
    interims: Iterable[Interim],
) -> list[InvoiceLine]:
    """The lines that take them back, without positions yet."""
    return [
        InvoiceLine(
            tenant_id=tenant_id,
            invoice_id=invoice_id,
            kind=_K.INTERIM,
            interim_id=each.id,
            model="",
            meter="",
            description=each.description,
            quantity=0,
            unit_price_pico=None,
            price_version=None,
            amount_minor=-each.billed_minor,
            period_start=starts_at,
            period_end=ends_at,
        )
        for each in interims
    ]


def billed_already(interims: Sequence[Interim]) -> list[Payable]:
    """What they billed, as credit sees it: by model and meter, below zero.

    All of them together billed the lines of the last one.
    """
    if not interims:
        return []
    rows = (
        InvoiceLine.objects.filter(invoice_id=interims[-1].id)
        .exclude(kind__in=[_K.CREDIT, _K.INTERIM])
        .order_by("position")
        .values_list("model", "meter", "amount_minor")
    )
    return [Payable(model, meter, -amount_minor) for model, meter, amount_minor in rows]
