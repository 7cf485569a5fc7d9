"""Nobody expects the money of an invoice any more: uncollectible, here and at the provider.

It can still be paid. One of which a part was paid stays open: that part would be written off too.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.payments import steps
from billing.payments.by_hand import is_by_hand, recorded_minor
from billing.payments.judge import judge
from billing.payments.mirror import mirror
from billing.payments.models import PaymentRun, PaymentStep
from billing.payments.provider import PaymentProvider
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

_FINAL = (Invoice.Status.PAID, Invoice.Status.VOID, Invoice.Status.UNCOLLECTIBLE)


def give_up(tenant_id: UUID, invoice_id: UUID, provider: Callable[[], PaymentProvider]) -> str:
    """What became of it, in words. Raises what `PaymentProvider.send` raises."""
    if is_by_hand(tenant_id, invoice_id):
        return _by_hand(tenant_id, invoice_id)
    there = provider()
    with tenant_scope(tenant_id):
        run = PaymentRun.objects.get(invoice_id=invoice_id)
        step = steps.freeze(tenant_id, run.id, PaymentStep.Kind.WRITE_OFF, {})

    def is_final(_since: datetime) -> str | None:
        their_id = run.provider_invoice_id or ""
        return their_id if there.invoice(their_id).status in _FINAL else None

    their_id = run.provider_invoice_id or ""
    steps.perform(tenant_id, step.id, there, target_id=their_id, recover=is_final)
    theirs = there.invoice(their_id)
    mirror(tenant_id, invoice_id, theirs)
    return theirs.status


def _by_hand(tenant_id: UUID, invoice_id: UUID) -> str:
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        if recorded_minor(invoice_id):
            return "kept open: a part of it was paid"
        if advance(invoice_id, News(Invoice.Status.UNCOLLECTIBLE, clock.now())):
            Invoice.objects.filter(id=invoice_id).update(
                collection_state=Invoice.Collection.DONE, collection_note=""
            )
            judge(tenant_id)
        invoice.refresh_from_db()
        return str(invoice.status)
