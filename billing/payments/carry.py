"""Invoices that are too small to be charged: they are collected with the next one.

The problem: below a currency's smallest charge Stripe marks an invoice paid and moves the amount to
a balance of its own, which some later invoice gets: ours and theirs then differ. Choice: such an
invoice is not sent. It is open, with its number, and the customer's next run in its currency has
it as a line, if all together are enough.

Where Stripe computes the taxes, an invoice is neither carried nor takes any along: it has no total
before it is there, and what is taken along is taxed already.

Guarantees: taken along by one run at a time (a row per invoice); paid, or written off, with it;
free for the next again if that is voided. What was due of it is frozen with the run's lines.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from uuid import UUID

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice, TaxedBy
from billing.invoicing.record import due_minor
from billing.payments.models import CarriedInvoice, PaymentRun
from billing.payments.provider import LineOrder, PaymentProvider
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_text

_SETTLING = {Invoice.Status.PAID, Invoice.Status.UNCOLLECTIBLE}


def carry_if_too_small(invoice: Invoice, provider: PaymentProvider) -> bool:
    """Leave an invoice to the next one, if it is too small even with what waits already.

    Needs the tenant's door.
    """
    least = provider.minimum_minor(invoice.currency)
    if not 0 < invoice.total_minor < least or invoice.taxed_by == TaxedBy.STRIPE:
        return False
    if PaymentRun.objects.filter(invoice=invoice).exists():
        return False
    waiting = sum(due_minor(each.invoice) for each in _waiting(invoice))
    if invoice.total_minor + waiting >= least:
        return False
    advance(invoice.id, News(Invoice.Status.OPEN, clock.now()))
    CarriedInvoice.objects.get_or_create(invoice=invoice, defaults={"tenant_id": invoice.tenant_id})
    smallest = f"{minor_to_text(least, invoice.currency)} {invoice.currency}"
    Invoice.objects.filter(id=invoice.id).update(
        collection_state=Invoice.Collection.CARRIED,
        collection_note=f"Less than {smallest} cannot be charged: collected with the next invoice.",
    )
    return True


def uncarry() -> None:
    """Invoices that wait for the next one get their own turn again, as where the next one is not
    charged any more. Needs the tenant's door."""
    waiting = CarriedInvoice.objects.filter(run__isnull=True, invoice__status=Invoice.Status.OPEN)
    for each in waiting.select_for_update(of=("self",)):
        each.delete()
        Invoice.objects.filter(
            id=each.invoice_id, collection_state=Invoice.Collection.CARRIED
        ).update(collection_state=Invoice.Collection.PENDING, collection_note="")


def waiting_for(invoice: Invoice) -> list[CarriedInvoice]:
    """What a run of the invoice that is about to be made takes along, with what is due of each.

    Needs the tenant's door; nobody else takes them until the transaction ends.
    """
    waiting = _waiting(invoice)
    for each in waiting:
        each.amount_minor = due_minor(each.invoice)
    return [each for each in waiting if (each.amount_minor or 0) > 0]


def take_along(run: PaymentRun, waiting: Sequence[CarriedInvoice]) -> None:
    """They go with the run that was just made. Needs the tenant's door."""
    for each in waiting:
        each.run = run
        each.save(update_fields=["run", "amount_minor"])


def taken_along(run: PaymentRun) -> list[CarriedInvoice]:
    """What the run took when it was made; nothing is added to it later. Needs the tenant's door."""
    rows = CarriedInvoice.objects.filter(run=run).select_related("invoice")
    return list(rows.order_by("invoice__number"))


def carried_minor(run: PaymentRun | None) -> int:
    """What of a run is of invoices that it takes along. Needs the tenant's door."""
    rows = CarriedInvoice.objects.filter(run=run).values_list("amount_minor", flat=True)
    return sum(amount or 0 for amount in rows) if run is not None else 0


def carried_by(runs: Collection[PaymentRun]) -> dict[UUID, list[CarriedInvoice]]:
    """What each of these runs takes along, by the run's id. Needs a door."""
    found: dict[UUID, list[CarriedInvoice]] = defaultdict(list)
    for row in CarriedInvoice.objects.filter(run__in=runs).order_by("id"):
        found[row.run_id].append(row)
    return found


def carried_news(run: PaymentRun, news: News) -> None:
    """What became of a run becomes of what it takes along. Needs the tenant's door."""
    for each in CarriedInvoice.objects.filter(run=run).order_by("id"):
        if news.status == Invoice.Status.VOID:
            CarriedInvoice.objects.filter(id=each.id).update(run=None, amount_minor=None)
            continue
        paid_minor = each.amount_minor if news.status == Invoice.Status.PAID else None
        advance(
            each.invoice_id,
            News(news.status, news.at, hosted_url=news.hosted_url, paid_minor=paid_minor),
        )
        if news.status in _SETTLING:
            Invoice.objects.filter(id=each.invoice_id).update(
                collection_state=Invoice.Collection.DONE, collection_note=""
            )


def _waiting(invoice: Invoice) -> list[CarriedInvoice]:
    if invoice.taxed_by == TaxedBy.STRIPE:  # it would tax again what is taxed already
        return []
    rows = CarriedInvoice.objects.filter(
        run__isnull=True,
        invoice__currency=invoice.currency,
        invoice__status=Invoice.Status.OPEN,
    ).exclude(invoice=invoice)
    return list(
        rows.select_related("invoice").select_for_update(of=("self",)).order_by("invoice__number")
    )


def order(carried: CarriedInvoice) -> LineOrder:
    """Its line in the run that takes it along."""
    small: Invoice = carried.invoice
    return LineOrder(
        str(small.id),
        f"Invoice {small.number}, which was too small to be charged by itself",
        carried.amount_minor or 0,
        small.period_start,
        small.period_end,
    )
