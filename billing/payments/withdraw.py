"""Void an invoice that is open, or write it off: at the provider first, where it is there.

Guarantees: what was asked for is a frozen step before anything happens, so that it is done once,
whatever dies; from then on nobody charges that invoice. Ours moves by what the provider says
afterwards (`mirror`), so that both are never of two minds: a customer who paid a moment before has
paid, and the step has failed and says so. An invoice that is not at a provider moves at once; one
of which a part arrived does not, for that part would be forgiven too.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.invoicing.said import with_said
from billing.payments import steps
from billing.payments.by_hand import recorded_minor
from billing.payments.judge import judge
from billing.payments.mirror import mirror
from billing.payments.models import CarriedInvoice, PaymentRun, PaymentStep
from billing.payments.provider import PaymentProvider, ProviderRefused
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope

REASON_CHARS_MAX = 200
VOID, UNCOLLECTIBLE = str(Invoice.Status.VOID), str(Invoice.Status.UNCOLLECTIBLE)
# What becomes of an invoice, the step that asks for it, and what it may be of.
_STEPS = {VOID: PaymentStep.Kind.VOID, UNCOLLECTIBLE: PaymentStep.Kind.WRITE_OFF}
_OF = {
    VOID: {Invoice.Status.OPEN, Invoice.Status.UNCOLLECTIBLE},
    UNCOLLECTIBLE: {Invoice.Status.OPEN},
}
_IN_WORDS = {VOID: "voided", UNCOLLECTIBLE: "written off"}
_CONCLUDED = (PaymentStep.State.DONE, PaymentStep.State.FAILED)


def ask(invoice_id: UUID, status: str, reason: str) -> Invoice:
    """Ask for `void` or `uncollectible`; the invoice, which has moved if no provider has it.

    Asked again, it is asked once. Needs the tenant's door. Raises `CallerError`:
    `invoice_not_found`, `reason_invalid`, `invoice_not_open`, `asked_otherwise`, `partly_paid`,
    `collected_with_another`.
    """
    if not reason.strip() or len(reason) > REASON_CHARS_MAX or "\x00" in reason:
        raise CallerError(
            "reason_invalid", f"Say why, in 1 to {REASON_CHARS_MAX} characters.", field="reason"
        )
    with transaction.atomic():
        invoice: Invoice | None = Invoice.objects.select_for_update().filter(id=invoice_id).first()
        if invoice is None:
            raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
        if invoice.status not in _OF[status]:
            raise CallerError(
                "invoice_not_open",
                f"An invoice that is {invoice.status} cannot be {_IN_WORDS[status]}.",
                status=409,
            )
        run = PaymentRun.objects.filter(invoice_id=invoice_id).first()
        said = f"To be {_IN_WORDS[status]}: {reason.strip()}"
        if run is None or not run.provider_invoice_id:
            _ensure_nothing_arrived(invoice, status)
            _ensure_not_taken_along(invoice_id, status)
            advance(invoice_id, News(status, clock.now()))
            invoice = _say(invoice_id, said, Invoice.Collection.DONE)
            judge(invoice.tenant_id)
            return invoice
        known = asked_of(run.id)
        if known is not None and known.kind != _STEPS[status]:
            raise CallerError(
                "asked_otherwise", "Something else was asked of this invoice already.", status=409
            )
        if known is not None:
            return invoice
        steps.freeze(invoice.tenant_id, run.id, _STEPS[status], {})
        return _say(invoice_id, said, Invoice.Collection.PENDING)


def _ensure_nothing_arrived(invoice: Invoice, status: str) -> None:
    arrived = recorded_minor(invoice.id)
    if arrived:
        text = f"{minor_to_text(arrived, invoice.currency)} {invoice.currency}"
        raise CallerError(
            "partly_paid",
            f"{text} of this invoice arrived, so it is not {_IN_WORDS[status]}: issue a credit"
            " note over the rest, or take the payment back first.",
            status=409,
        )


def _ensure_not_taken_along(invoice_id: UUID, status: str) -> None:
    """It is a line of another's there: what becomes of that becomes of it."""
    carried = CarriedInvoice.objects.filter(invoice_id=invoice_id, run__isnull=False).first()
    if carried is not None:
        raise CallerError(
            "collected_with_another",
            f"This invoice is collected with {carried.run.invoice}, and is {_IN_WORDS[status]} with"
            " it alone.",
            status=409,
        )


def asked_of(run_id: UUID) -> PaymentStep | None:
    """What is asked for and not done yet. Needs the tenant's door."""
    return (
        PaymentStep.objects.filter(run_id=run_id, kind__in=list(_STEPS.values()))
        .exclude(state__in=_CONCLUDED)
        .first()
    )


def withdraw(
    tenant_id: UUID, run: PaymentRun, asked: PaymentStep, provider: PaymentProvider
) -> None:
    """Do what was asked for there, and apply what the invoice is then.

    Held by one worker, as a run is. Raises what `PaymentProvider.send` raises.
    """
    their_id, wanted = str(run.provider_invoice_id), _status_of(asked)

    def moved(_since: datetime) -> str | None:
        return their_id if provider.invoice(their_id).status == wanted else None

    said = ""
    try:
        steps.perform(tenant_id, asked.id, provider, target_id=their_id, recover=moved)
    except ProviderRefused as refused:
        theirs = provider.invoice(their_id)
        if theirs.status == Invoice.Status.OPEN:
            raise
        said = f"Not {_IN_WORDS[wanted]}: it is {theirs.status} there ({refused.message})"
    mirror(tenant_id, run.invoice_id, provider.invoice(their_id))
    if said:
        with tenant_scope(tenant_id):
            invoice = Invoice.objects.select_for_update().get(id=run.invoice_id)
            _say(invoice.id, said, invoice.collection_state)


def _status_of(asked: PaymentStep) -> str:
    return next(status for status, kind in _STEPS.items() if kind == asked.kind)


def _say(invoice_id: UUID, said: str, collection: str) -> Invoice:
    """A person has decided: what the invoice was parked for is over."""
    invoice: Invoice = Invoice.objects.get(id=invoice_id)  # as it has moved meanwhile
    invoice.collection_state = collection
    invoice.collection_note = with_said(invoice.collection_note, said)
    invoice.save(update_fields=["collection_state", "collection_note"])
    return invoice
