"""Taxes that Stripe computes, on the invoice that they are of.

Stripe taxes an invoice on what it asks for, lines below zero taken off: where nothing is asked for,
it is not asked. Each invoice is taxed by itself. So an interim invoice keeps the taxes that Stripe
put on it, and its month's invoice is taxed on the rest.

Guarantees: what Stripe said is recorded once, while the invoice is finalising, before it is final
there; said again it changes nothing, said otherwise it is told as a difference. No invoice that
Stripe taxes is open before. Taxes, total and `taxed_at` commit together.

Does not call Stripe (`payments`). Needs the tenant's door.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from billing.invoicing.models import Invoice, InvoiceTax, StripeTax, TaxedBy, TaxMode
from billing.invoicing.tax import PERCENT_DIGITS
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure

UPCOMING_NOTE = "Taxes are computed by Stripe when the invoice is sent."
TAXED_NOTE = "Taxes computed by Stripe."
UNTAXED_NOTE = "Stripe computed the taxes: there is none to pay."
_NAME_CHARS_MAX, _JURISDICTION_CHARS_MAX = 40, 80


@dataclass(frozen=True, slots=True)
class ToldTax:
    """One tax as Stripe puts it on top of an invoice; `rate_id` is its rate's there."""

    rate_id: str
    name: str
    percentage: Decimal
    jurisdiction: str
    country: str
    taxable_minor: int
    amount_minor: int


def is_computed_by_stripe() -> bool:
    """Whether the next invoice is, unless the organisation is exempt."""
    return bool(StripeTax.objects.exists())


def record_told(invoice_id: UUID, told: Sequence[ToldTax]) -> list[str]:
    """What Stripe says of an invoice, onto it; what it said otherwise before, as sentences."""
    invoice = Invoice.objects.select_for_update().get(id=invoice_id)
    ensure(invoice.taxed_by == TaxedBy.STRIPE, "Stripe taxes this invoice")
    if invoice.taxed_at is not None:
        return _differences(invoice_id, told)
    ensure(invoice.status == Invoice.Status.FINALISING, "taxes are told while it is finalising")
    begun = InvoiceTax.objects.filter(invoice_id=invoice_id).count()
    InvoiceTax.objects.bulk_create(
        _row(invoice, begun + n, each) for n, each in enumerate(told, start=1)
    )
    on_top_minor = sum(each.amount_minor for each in told)
    invoice.tax_exclusive_minor += on_top_minor
    invoice.total_minor += on_top_minor
    invoice.tax_note = TAXED_NOTE if on_top_minor else UNTAXED_NOTE
    invoice.taxed_at = clock.now()
    invoice.save(update_fields=["tax_exclusive_minor", "total_minor", "tax_note", "taxed_at"])
    return []


def told_minor(invoice_id: UUID) -> int:
    """What Stripe put on top, so far as it is recorded."""
    rows = InvoiceTax.objects.filter(invoice_id=invoice_id, rate__isnull=True)
    return sum(rows.values_list("amount_minor", flat=True))


def _row(invoice: Invoice, position: int, told: ToldTax) -> InvoiceTax:
    where = told.jurisdiction[:_JURISDICTION_CHARS_MAX]
    has_news = where and where != told.country
    return InvoiceTax(
        tenant_id=invoice.tenant_id,
        invoice=invoice,
        position=position,
        provider_rate=told.rate_id,
        name=told.name[:_NAME_CHARS_MAX],
        percentage=round(told.percentage, PERCENT_DIGITS),
        mode=TaxMode.EXCLUSIVE,
        country=told.country,
        taxable_minor=told.taxable_minor,
        amount_minor=told.amount_minor,
        note=f"{where}, by Stripe" if has_news else "by Stripe",
    )


def _differences(invoice_id: UUID, told: Sequence[ToldTax]) -> list[str]:
    rows = InvoiceTax.objects.filter(invoice_id=invoice_id, rate__isnull=True)
    ours = dict(rows.values_list("provider_rate", "amount_minor"))
    theirs = {each.rate_id: each.amount_minor for each in told}
    return [
        f"tax {rate_id}: ours {ours.get(rate_id, 0)}, theirs {theirs.get(rate_id, 0)}"
        for rate_id in sorted({*ours, *theirs})
        if ours.get(rate_id, 0) != theirs.get(rate_id, 0)
    ]
