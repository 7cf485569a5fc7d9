"""What the provider says of an invoice now, applied to ours and to the tenant's standing.

Monotonic and idempotent: read in any order, any number of times, the end is the same. An invoice
of another customer, currency or amount than ours is not applied: it parks ours. What was paid
beyond what was due, as after a credit note that the provider does not know, is a balance of the
customer's in the ledger.
"""

import logging
from uuid import UUID

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.invoicing.record import overpaid_minor
from billing.invoicing.said import with_said
from billing.payments.judge import judge
from billing.payments.models import PaymentRun
from billing.payments.provider import ProviderInvoice
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

_FINAL = {Invoice.Status.PAID, Invoice.Status.VOID, Invoice.Status.UNCOLLECTIBLE}


def mirror(tenant_id: UUID, invoice_id: UUID, theirs: ProviderInvoice) -> bool:
    """Apply what was read; True if our invoice's status moved."""
    with tenant_scope(tenant_id):
        found = _differences(Invoice.objects.get(id=invoice_id), theirs)
    if found:
        park(tenant_id, invoice_id, "Ours and theirs differ:\n" + "\n".join(found))
        return False
    news = News(
        status=theirs.status,
        at=theirs.paid_at or clock.now(),
        hosted_url=theirs.hosted_url,
        attempts=theirs.attempts,
        paid_minor=max(0, theirs.settled_minor),
    )
    with tenant_scope(tenant_id):
        moved = advance(invoice_id, news)
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        if invoice.collection_state != Invoice.Collection.PARKED:
            invoice.collection_state = _collection(invoice)
            if invoice.collection_state == Invoice.Collection.DONE:
                invoice.collection_note = ""
        over_minor = overpaid_minor(invoice) if moved else 0
        if over_minor:
            said = _overpaid(invoice, over_minor)
            invoice.collection_note = with_said(invoice.collection_note, said)
        invoice.save(update_fields=["collection_state", "collection_note"])
        judge(tenant_id)
    return moved


def park(tenant_id: UUID, invoice_id: UUID, note: str) -> None:
    """Stop collecting until a person has looked; `note` says what differs, after what was said."""
    log.error("invoice %s is parked: %s", invoice_id, note)
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        invoice.collection_state = Invoice.Collection.PARKED
        invoice.collection_note = with_said(invoice.collection_note, note)
        invoice.save(update_fields=["collection_state", "collection_note"])


def _differences(invoice: Invoice, theirs: ProviderInvoice) -> list[str]:
    """What an event may be bound by. A draft there has no total to compare yet."""
    run = PaymentRun.objects.filter(invoice_id=invoice.id).first()
    compared = [
        ("invoice", str(invoice.id), theirs.our_invoice_id),
        ("customer", run.customer_id if run else theirs.customer_id, theirs.customer_id),
        ("currency", invoice.currency, theirs.currency),
    ]
    if theirs.status != Invoice.Status.DRAFT:
        compared.append(("total", str(invoice.total_minor), str(theirs.total_minor)))
    return [
        f"{what}: ours {ours}, theirs {other}" for what, ours, other in compared if ours != other
    ]


def _overpaid(invoice: Invoice, over_minor: int) -> str:
    return (
        f"{minor_to_text(over_minor, invoice.currency)} {invoice.currency} more was paid than was"
        " due: it is the customer's balance in the ledger, to be paid back."
    )


def _collection(invoice: Invoice) -> str:
    if invoice.status in _FINAL:
        return Invoice.Collection.DONE
    if invoice.status == Invoice.Status.OPEN and invoice.payment_attempts:
        return Invoice.Collection.AWAITING_PAYMENT
    return str(invoice.collection_state)
