"""What the provider says of an invoice now, applied to ours and to the tenant's standing.

Monotonic and idempotent: read in any order, any number of times, the end is the same. An invoice
of another customer, currency or amount than ours is not applied: it parks ours; so does a credit
note there that is not ours, or one of ours that is void there. What was paid
beyond what was due, as before a credit note arrived there, is a balance of the customer's in the
ledger.
"""

import logging
from datetime import timedelta
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.advance import News, advance
from billing.invoicing.models import CreditNote, Invoice
from billing.invoicing.record import overpaid_minor
from billing.invoicing.said import with_said
from billing.payments.carry import carried_minor, carried_news
from billing.payments.disputed import taken_of_invoice
from billing.payments.judge import judge
from billing.payments.models import PaymentRun, PaymentStep, Refund
from billing.payments.provider import ProviderInvoice
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

READ_AGE_MAX = timedelta(minutes=5)  # longer than any call takes with its retries
_FINAL = {Invoice.Status.PAID, Invoice.Status.VOID, Invoice.Status.UNCOLLECTIBLE}
# The calls that an invoice shows to have happened, by its status there.
_SHOWN: dict[str, list[str]] = {
    Invoice.Status.OPEN: [PaymentStep.Kind.FINALISE],
    Invoice.Status.PAID: [PaymentStep.Kind.FINALISE, PaymentStep.Kind.PAY],
    Invoice.Status.VOID: [PaymentStep.Kind.FINALISE, PaymentStep.Kind.VOID],
    Invoice.Status.UNCOLLECTIBLE: [PaymentStep.Kind.FINALISE, PaymentStep.Kind.WRITE_OFF],
}


def mirror(tenant_id: UUID, invoice_id: UUID, theirs: ProviderInvoice) -> bool:
    """Apply what was read; True if our invoice's status moved."""
    with tenant_scope(tenant_id):
        run = PaymentRun.objects.filter(invoice_id=invoice_id).first()
        carried = carried_minor(run)
        found = _differences(Invoice.objects.get(id=invoice_id), run, carried, theirs)
    if found:
        park(tenant_id, invoice_id, "Ours and theirs differ:\n" + "\n".join(found))
        return False
    news = News(
        status=theirs.status,
        at=theirs.paid_at or clock.now(),
        hosted_url=theirs.hosted_url,
        attempts=theirs.attempts,
        paid_minor=max(0, theirs.settled_minor - carried),
    )
    with tenant_scope(tenant_id):
        moved = advance(invoice_id, news)
        if run is not None:
            _conclude(run, theirs)
        if run is not None and carried:
            carried_news(run, news)
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        is_parked = invoice.collection_state == Invoice.Collection.PARKED
        if not is_parked:
            invoice.collection_state = _collection(invoice)
        if invoice.status == Invoice.Status.PAID:
            said = _overpaid(invoice)
            invoice.collection_note = (
                with_said(invoice.collection_note, said) if is_parked else said
            )
        invoice.save(update_fields=["collection_state", "collection_note"])
        judge(tenant_id)
    return moved


def _conclude(run: PaymentRun, theirs: ProviderInvoice) -> None:
    """What was sent by somebody who did not live to note its answer has happened, as is seen."""
    unheard_of = PaymentStep.objects.filter(
        run=run,
        kind__in=_SHOWN.get(theirs.status, []),
        state__in=[PaymentStep.State.SENT, PaymentStep.State.UNCLEAR],
    )
    unheard_of.update(
        state=PaymentStep.State.DONE,
        result_id=theirs.provider_invoice_id,
        done_at=clock.now(),
        note="found there",
    )


def park(tenant_id: UUID, invoice_id: UUID, note: str) -> None:
    """Stop collecting until a person has looked; `note` says what differs, after what was said."""
    log.error("invoice %s is parked: %s", invoice_id, note)
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        invoice.collection_state = Invoice.Collection.PARKED
        invoice.collection_note = with_said(invoice.collection_note, note)
        invoice.save(update_fields=["collection_state", "collection_note"])


def _differences(
    invoice: Invoice, run: PaymentRun | None, carried: int, theirs: ProviderInvoice
) -> list[str]:
    """What an event may be bound by. A draft there has no total to compare yet."""
    compared = [
        ("invoice", str(invoice.id), theirs.our_invoice_id),
        ("customer", run.customer_id if run else theirs.customer_id, theirs.customer_id),
        ("currency", invoice.currency, theirs.currency),
    ]
    if theirs.status != Invoice.Status.DRAFT and invoice.awaits_taxes:
        compared.append(("taxes", "not recorded yet; resume collecting", "final"))
    elif theirs.status != Invoice.Status.DRAFT:
        compared.append(("total", str(invoice.total_minor + carried), str(theirs.total_minor)))
    if theirs.status not in (Invoice.Status.DRAFT, Invoice.Status.VOID):
        compared.append(("credit notes", *_credited(invoice, theirs.credited_minor)))
    return [
        f"{what}: ours {ours}, theirs {other}" for what, ours, other in compared if ours != other
    ]


def _credited(invoice: Invoice, theirs_minor: int) -> tuple[str, str]:
    """What notes that are there come to. One on its way may be there already, and one that just
    arrived may not have been when theirs was read."""
    notes = CreditNote.objects.filter(invoice_id=invoice.id)
    there = PaymentStep.objects.filter(
        kind=PaymentStep.Kind.CREDIT_NOTE,
        state=PaymentStep.State.DONE,
        done_at__lt=clock.now() - READ_AGE_MAX,
    ).values("subject_id")
    least = notes.filter(id__in=there).aggregate(sum=Sum("total_minor"))["sum"] or 0
    most = notes.aggregate(sum=Sum("total_minor"))["sum"] or 0
    ours = min(max(least, theirs_minor), most)
    return str(ours), str(theirs_minor)


def _overpaid(invoice: Invoice) -> str:
    """What was paid beyond what was due and did not go back; nothing to say where there is none."""
    refunds = Refund.objects.filter(invoice_id=invoice.id).exclude(
        state__in=[Refund.State.FAILED, Refund.State.REFUSED]
    )
    gone_back = refunds.aggregate(sum=Sum("balance_minor"))["sum"] or 0
    gone_back += taken_of_invoice(invoice.id).balance_minor
    over_minor = overpaid_minor(invoice) - int(gone_back)
    if over_minor <= 0:
        return ""
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
