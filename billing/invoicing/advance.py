"""Move an invoice along its states; the only writer of them.

    draft -> finalising -> open -> paid | void | uncollectible      uncollectible -> paid | void
    paid in parts -> open | uncollectible, when one of them is taken back (`reopen`)

A draft waits to be collected; an invoice is finalising once that has begun and cannot be left
undone, and open when it has its number. Nothing is skipped: news of a later state goes through the
ones before it.

Guarantees: monotonic. A move that is not in the table is not made, and says so by returning False:
old news, in any order and any number, changes nothing. An invoice gets its number in the
transaction that opens it, from its tenant's series, so numbers have no gaps. Who it is from and
who it is made out to are frozen with it. One that is voided gives back the credit that it drew. The
ledger holds what each step moves when the step commits.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from billing.credits.restore import restore_credit
from billing.invoicing.models import Invoice, InvoiceSeries
from billing.invoicing.parties import buyer_now, seller_now
from billing.invoicing.record import record
from meterplane.kernel.invariant import ensure
from tenants.queries import organisation

_S = Invoice.Status
# From each state to each state that news of it may bring, the way there.
_WAY: dict[tuple[str, str], tuple[str, ...]] = {
    (_S.DRAFT, _S.FINALISING): (_S.FINALISING,),
    (_S.DRAFT, _S.OPEN): (_S.FINALISING, _S.OPEN),
    (_S.DRAFT, _S.PAID): (_S.FINALISING, _S.OPEN, _S.PAID),
    (_S.DRAFT, _S.VOID): (_S.FINALISING, _S.OPEN, _S.VOID),
    (_S.DRAFT, _S.UNCOLLECTIBLE): (_S.FINALISING, _S.OPEN, _S.UNCOLLECTIBLE),
    (_S.FINALISING, _S.OPEN): (_S.OPEN,),
    (_S.FINALISING, _S.PAID): (_S.OPEN, _S.PAID),
    (_S.FINALISING, _S.VOID): (_S.OPEN, _S.VOID),
    (_S.FINALISING, _S.UNCOLLECTIBLE): (_S.OPEN, _S.UNCOLLECTIBLE),
    (_S.OPEN, _S.PAID): (_S.PAID,),
    (_S.OPEN, _S.VOID): (_S.VOID,),
    (_S.OPEN, _S.UNCOLLECTIBLE): (_S.UNCOLLECTIBLE,),
    (_S.UNCOLLECTIBLE, _S.PAID): (_S.PAID,),
    (_S.UNCOLLECTIBLE, _S.VOID): (_S.VOID,),
}


@dataclass(frozen=True, slots=True)
class News:
    """What is known of an invoice now. `attempts` counts failed and successful charges;
    `paid_minor` is what was paid of it, where somebody says so. With `in_parts` each payment has
    its ledger entry already."""

    status: str
    at: datetime
    hosted_url: str = ""
    attempts: int = 0
    paid_minor: int | None = None
    in_parts: bool = False


def advance(invoice_id: UUID, news: News) -> bool:
    """Apply `news`; True if the status moved. Needs the tenant's door."""
    invoice = Invoice.objects.select_for_update().get(id=invoice_id)
    if news.status != _S.DRAFT:
        invoice.hosted_url = news.hosted_url or invoice.hosted_url
        invoice.payment_attempts = max(invoice.payment_attempts, news.attempts)
        invoice.save(update_fields=["hosted_url", "payment_attempts"])
    way = _WAY.get((invoice.status, news.status), ())
    if _S.OPEN in way:
        ensure(not invoice.awaits_taxes, "an invoice is open once its taxes are known")
        _issue(invoice, news.at)
    if way and news.status == _S.VOID:
        restore_credit(tenant_id=invoice.tenant_id, invoice_id=invoice.id, source_id=invoice.id)
    for status in way:
        _step(invoice, status, news)
    return bool(way)


def reopen(invoice_id: UUID, *, is_written_off: bool) -> None:
    """It was paid in parts, and one of those was none after all: it is owed again.

    Nothing is posted: the parts' entries do that. Needs the tenant's door.
    """
    moved = Invoice.objects.filter(id=invoice_id, status=_S.PAID, paid_in_parts=True).update(
        status=_S.UNCOLLECTIBLE if is_written_off else _S.OPEN,
        paid_at=None,
        paid_minor=None,
        paid_in_parts=False,
    )
    ensure(moved == 1, "only what was paid in parts is owed again")


def _issue(invoice: Invoice, at: datetime) -> None:
    """Before anything moves: the series' turn comes before credit's, and that before the ledger's,
    or two invoices of a tenant could wait for each other."""
    invoice.number = _next_number(invoice.tenant_id)
    invoice.finalised_at = at
    invoice.buyer, invoice.seller = buyer_now(), seller_now()


def _step(invoice: Invoice, status: str, news: News) -> None:
    left = invoice.status
    if status == _S.PAID:
        invoice.paid_at, invoice.paid_minor = news.at, news.paid_minor
        invoice.paid_in_parts = news.in_parts
    invoice.status = status
    if status == _S.FINALISING:
        invoice.save(update_fields=["status"])  # its number is that of an open invoice
        return
    frozen = ["number", "finalised_at", "buyer", "seller"]
    paid = ["paid_at", "paid_minor", "paid_in_parts"]
    invoice.save(update_fields=["status", *paid, *frozen])
    record(invoice, news.at, left=left)


def one_numbering_at_a_time(tenant_id: UUID) -> InvoiceSeries:
    """The tenant's series, which is nobody else's until the transaction ends."""
    return InvoiceSeries.objects.select_for_update().first() or _begin_series(tenant_id)


def _next_number(tenant_id: UUID) -> str:
    series = one_numbering_at_a_time(tenant_id)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    return f"{series.prefix}-{series.last_number:06d}"


def _begin_series(tenant_id: UUID) -> InvoiceSeries:
    """The prefix is fixed here: renaming an organisation does not rename its series."""
    slug = organisation().slug.upper()
    for prefix in (slug, f"{slug}-{tenant_id.hex[-6:].upper()}"):  # slugs may differ in case only
        try:
            with transaction.atomic():
                InvoiceSeries.objects.create(tenant_id=tenant_id, prefix=prefix)
        except IntegrityError:
            continue  # taken, or this tenant's series was begun at the same time
        break
    series: InvoiceSeries = InvoiceSeries.objects.select_for_update().get()
    return series
