"""Bring an invoice to the provider and to its payment: crash-safe, one step after the other.

    customer -> draft -> lines -> verify -> finalise -> pay -> mirror

Guarantees: one invoice there for one of ours, with the same lines to the cent, however often and
wherever this runs and is killed. Calls are made outside transactions; a lease keeps two workers
from the same run, and if both had it nevertheless, idempotency keys and unique rows still hold.
What does not agree parks the invoice with a readable difference: nothing is guessed.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from django.db.models import Q

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice, InvoiceLine
from billing.payments import steps
from billing.payments.accounts import ensure_account
from billing.payments.mirror import mirror
from billing.payments.models import PaymentRun, PaymentStep
from billing.payments.provider import (
    CardDeclined,
    DraftOrder,
    LineOrder,
    PaymentProvider,
    ProviderRefused,
)
from billing.payments.verify import Expected, differences
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import INVOICE_LINES_MAX
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)  # above the seven calls of a run at their longest waits
RETRY_AFTER_MAX = timedelta(hours=1)
Kind = PaymentStep.Kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the invoice stands now: `status` is ours, `note` what a person should know."""

    status: str
    collection_state: str
    note: str = ""


class Parked(Exception):
    """Ours and theirs differ, or theirs is not what it can be. A person must look."""


def collect(tenant_id: UUID, invoice_id: UUID, provider: PaymentProvider) -> Outcome:
    """Go as far as possible now. Safe to call any number of times, anywhere.

    Raises `WorldError` when the provider is away: call again later.
    """
    with tenant_scope(tenant_id):
        invoice: Invoice = Invoice.objects.get(id=invoice_id)
        if invoice.total_minor == 0 and invoice.status == Invoice.Status.DRAFT:
            _settle_nothing(invoice)
    if invoice.collection_state in (Invoice.Collection.PARKED, Invoice.Collection.DONE):
        return _outcome(tenant_id, invoice_id)
    customer_id = ensure_account(tenant_id, provider)
    run = _run(tenant_id, invoice, customer_id, provider)
    token = _lease(tenant_id, run.id)
    if token is None:
        return _outcome(tenant_id, invoice_id)
    try:
        _advance_run(tenant_id, invoice, run, provider)
    except Parked as difference:
        _park(tenant_id, invoice_id, str(difference))
    except ProviderRefused as refused:
        _park(tenant_id, invoice_id, f"the provider refused ({refused.code}): {refused.message}")
    except WorldError:
        _back_off(tenant_id, run.id)
        raise
    finally:
        _release(tenant_id, run.id, token)
    return _outcome(tenant_id, invoice_id)


def _advance_run(
    tenant_id: UUID, invoice: Invoice, run: PaymentRun, provider: PaymentProvider
) -> None:
    lines = _line_orders(tenant_id, invoice.id)
    if len(lines) > INVOICE_LINES_MAX:
        raise Parked(f"{len(lines)} lines are more than the {INVOICE_LINES_MAX} an invoice holds")
    their_id = _draft(tenant_id, invoice, run, provider)
    theirs = provider.invoice(their_id)
    if theirs.status == "draft":
        _attach(tenant_id, run, provider, their_id, lines)
        _verify(tenant_id, invoice, run, provider, their_id, lines)
        _finalise(tenant_id, run, provider, their_id)
        theirs = provider.invoice(their_id)
    else:
        # Finalised by an earlier try: what was finalised is compared all the same.
        _verify(tenant_id, invoice, run, provider, their_id, lines)
    mirror(tenant_id, invoice.id, theirs)
    if theirs.status == "open" and not theirs.is_attempted:
        _pay(tenant_id, run, provider, their_id)
    mirror(tenant_id, invoice.id, provider.invoice(their_id))


def _draft(tenant_id: UUID, invoice: Invoice, run: PaymentRun, provider: PaymentProvider) -> str:
    if run.provider_invoice_id:
        return run.provider_invoice_id
    order = DraftOrder(
        invoice_id=invoice.id,
        tenant_id=tenant_id,
        customer_id=run.customer_id,
        currency=invoice.currency,
        digest=run.digest,
        description=f"Usage from {invoice.period_start:%Y-%m-%d} to {invoice.period_end:%Y-%m-%d}",
    )
    with tenant_scope(tenant_id):
        step = steps.freeze(tenant_id, run.id, Kind.DRAFT, provider.draft_parameters(order))
    their_id = steps.perform(
        tenant_id,
        step.id,
        provider,
        target_id="",
        recover=lambda since: provider.find_invoice(run.customer_id, invoice.id, since),
    )
    with tenant_scope(tenant_id):
        PaymentRun.objects.filter(id=run.id).update(provider_invoice_id=their_id)
    run.provider_invoice_id = their_id
    return their_id


def _attach(
    tenant_id: UUID,
    run: PaymentRun,
    provider: PaymentProvider,
    their_id: str,
    lines: list[LineOrder],
) -> None:
    with tenant_scope(tenant_id):
        step = steps.freeze(tenant_id, run.id, Kind.LINES, provider.lines_parameters(lines))
    # Lines are added in one call: either all of ours are there, or none.
    steps.perform(
        tenant_id,
        step.id,
        provider,
        target_id=their_id,
        recover=lambda _: their_id if provider.lines(their_id) else None,
    )


def _verify(
    tenant_id: UUID,
    invoice: Invoice,
    run: PaymentRun,
    provider: PaymentProvider,
    their_id: str,
    lines: list[LineOrder],
) -> None:
    expected = Expected(run.customer_id, invoice.currency, invoice.total_minor, run.digest, lines)
    found = differences(expected, provider.invoice(their_id), provider.lines(their_id))
    with tenant_scope(tenant_id):
        step = steps.freeze(tenant_id, run.id, Kind.VERIFY, {"digest": run.digest})
        if step.state != PaymentStep.State.DONE:
            step.note = "\n".join(found) or "every line agrees"
            step.state = PaymentStep.State.FAILED if found else PaymentStep.State.DONE
            step.done_at = clock.now()
            step.save(update_fields=["note", "state", "done_at"])
    if found:
        raise Parked("Ours and theirs differ:\n" + "\n".join(found))


def _finalise(tenant_id: UUID, run: PaymentRun, provider: PaymentProvider, their_id: str) -> None:
    with tenant_scope(tenant_id):
        step = steps.freeze(tenant_id, run.id, Kind.FINALISE, provider.finalise_parameters())

    def finalised(_since: datetime) -> str | None:
        return their_id if provider.invoice(their_id).status != "draft" else None

    steps.perform(tenant_id, step.id, provider, target_id=their_id, recover=finalised)


def _pay(tenant_id: UUID, run: PaymentRun, provider: PaymentProvider, their_id: str) -> None:
    with tenant_scope(tenant_id):
        step = steps.freeze(tenant_id, run.id, Kind.PAY, provider.pay_parameters())

    def paid(_since: datetime) -> str | None:
        return their_id if provider.invoice(their_id).status == "paid" else None

    try:
        steps.perform(tenant_id, step.id, provider, target_id=their_id, recover=paid)
    except CardDeclined as declined:
        log.info("invoice %s was declined: %s", their_id, declined.code)
    except ProviderRefused as refused:
        # No card on file, or paid meanwhile on the hosted page: reading it again tells.
        log.info("invoice %s was not charged: %s", their_id, refused.code)


def _line_orders(tenant_id: UUID, invoice_id: UUID) -> list[LineOrder]:
    with tenant_scope(tenant_id):
        rows = InvoiceLine.objects.filter(invoice_id=invoice_id).order_by("position")
        return [
            LineOrder(
                str(row.id), row.description, row.amount_minor, row.period_start, row.period_end
            )
            for row in rows
        ]


def _run(
    tenant_id: UUID, invoice: Invoice, customer_id: str, provider: PaymentProvider
) -> PaymentRun:
    lines = _line_orders(tenant_id, invoice.id)
    frozen = [str(invoice.id), customer_id, invoice.currency, invoice.total_minor]
    frozen += [[line.uid, line.description, line.amount_minor] for line in lines]
    digest = hashlib.sha256(msgspec.json.encode(frozen)).hexdigest()
    with tenant_scope(tenant_id):
        run: PaymentRun
        run, _ = PaymentRun.objects.get_or_create(
            invoice_id=invoice.id,
            defaults={
                "tenant_id": tenant_id,
                "provider": provider.name,
                "customer_id": customer_id,
                "digest": digest,
            },
        )
    return run


def _lease(tenant_id: UUID, run_id: UUID) -> UUID | None:
    token, now = uuid4(), clock.now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    with tenant_scope(tenant_id):
        taken = PaymentRun.objects.filter(free, id=run_id).update(
            lease_token=token, lease_until=now + LEASE
        )
    return token if taken else None


def _release(tenant_id: UUID, run_id: UUID, token: UUID) -> None:
    with tenant_scope(tenant_id):
        PaymentRun.objects.filter(id=run_id, lease_token=token).update(
            lease_token=None, lease_until=None
        )


def _back_off(tenant_id: UUID, run_id: UUID) -> None:
    with tenant_scope(tenant_id):
        run = PaymentRun.objects.select_for_update().get(id=run_id)
        run.attempts += 1
        pause = min(timedelta(seconds=2 ** min(run.attempts, 12)), RETRY_AFTER_MAX)
        run.next_attempt_at = clock.now() + pause
        run.save(update_fields=["attempts", "next_attempt_at"])


def _park(tenant_id: UUID, invoice_id: UUID, note: str) -> None:
    log.error("invoice %s is parked: %s", invoice_id, note)
    with tenant_scope(tenant_id):
        Invoice.objects.filter(id=invoice_id).update(
            collection_state=Invoice.Collection.PARKED, collection_note=note
        )


def _settle_nothing(invoice: Invoice) -> None:
    """Nothing is due: final and paid without the provider."""
    advance(invoice.id, News(Invoice.Status.PAID, clock.now()))
    Invoice.objects.filter(id=invoice.id).update(collection_state=Invoice.Collection.DONE)
    invoice.collection_state = Invoice.Collection.DONE


def _outcome(tenant_id: UUID, invoice_id: UUID) -> Outcome:
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.get(id=invoice_id)
    return Outcome(invoice.status, invoice.collection_state, invoice.collection_note)
