"""Celery's entries into payments. Arguments are ids; each looks for work and finishes it.

The sweep finds everything that is left, so that no message needs to arrive: events, invoices not
collected yet, invoices whose customer paid without our being told, and checkouts nobody told of.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.db.models import Exists, OuterRef, Q

from billing.invoicing.models import CreditNote, Invoice
from billing.payments import collect as collection
from billing.payments import credit_notes, disputes, inbox, money_in_sweep, refunds
from billing.payments import dun as dunning
from billing.payments.auto_reload import reload_if_low
from billing.payments.catch_up import catch_up
from billing.payments.models import PaymentRun, PaymentStep, Refund
from billing.payments.process import process_event
from billing.payments.provider import ProviderNotConfigured
from billing.payments.reconcile.days import reconcile_due
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

SWEEP_MAX = 200  # of each kind; a sweep every 30 s: 24,000 an hour
LOOK_AGAIN_AFTER = timedelta(minutes=15)  # a payment whose webhook was lost is seen within this


@shared_task(name="payments.process_webhook")
def process_webhook(event_id: str) -> None:
    """Process one stored event; if that cannot be done now, the sweep does it later."""
    try:
        process_event(event_id, provider())
    except WorldError as away:
        inbox.note_failure(event_id, away.message)
    except Exception as failed:
        inbox.note_failure(event_id, f"{type(failed).__name__}: {failed}")
        raise


@shared_task(name="payments.catch_up")
def catch_up_with_events() -> None:
    """Store events that were never delivered, and forget those of long ago."""
    inbox.forget_old()
    try:
        found = catch_up(provider())
    except ProviderNotConfigured as off:
        log.info("events are not listed: %s", off.message)
    except WorldError as away:
        log.warning("events are listed later: %s", away.message)
    else:
        if found:
            log.warning("%d events were never delivered and were found in the list", found)


@shared_task(name="payments.collect")
def collect(tenant_id: str, invoice_id: str) -> None:
    """Bring one invoice as far as it goes now."""
    try:
        collection.collect(UUID(tenant_id), UUID(invoice_id), provider)
    except WorldError as away:
        log.warning("invoice %s waits: %s", invoice_id, away.message)


@shared_task(name="payments.dun")
def dun() -> None:
    """Whatever is due of the cases of unpaid invoices."""
    dunning.dun(provider)


@shared_task(name="payments.reconcile")
def reconcile() -> None:
    """Compare both sides, day by day, as far as days are due."""
    try:
        reconcile_due(provider())
    except ProviderNotConfigured as off:
        log.info("payments are not reconciled: %s", off.message)
    except WorldError as away:
        log.warning("payments are reconciled later: %s", away.message)


@shared_task(name="payments.issue_credit_note")
def issue_credit_note(tenant_id: str, note_id: str) -> None:
    """Issue one credit note at the provider."""
    try:
        credit_notes.issue(UUID(tenant_id), UUID(note_id), provider())
    except WorldError as away:
        log.warning("credit note %s waits: %s", note_id, away.message)


@shared_task(name="payments.send_refund")
def send_refund(tenant_id: str, refund_id: str) -> None:
    """Send one refund that was asked for."""
    try:
        refunds.send(UUID(tenant_id), UUID(refund_id), provider())
    except WorldError as away:
        log.warning("refund %s waits: %s", refund_id, away.message)


@shared_task(name="payments.sweep")
def sweep() -> None:
    """Whatever was left. One piece of work that fails does not keep the others waiting."""
    for event_id in inbox.due_events(SWEEP_MAX):
        _guarded(process_webhook, event_id)
    for tenant_id, invoice_id in [*uncollected(), *_unheard_of()]:
        _guarded(collect, str(tenant_id), str(invoice_id))
    for act, tenant_id, subject_id in money_in_sweep.left(clock.now() - LOOK_AGAIN_AFTER):
        _guarded(_look_again, act, tenant_id, subject_id)
    for tenant_id, note_id in _unissued():
        _guarded(issue_credit_note, str(tenant_id), str(note_id))
    for tenant_id, refund_id in _unrefunded():
        _guarded(send_refund, str(tenant_id), str(refund_id))
    for their_id in disputes.left(clock.now()):
        _guarded(_look_again, disputes.mirror_dispute, their_id)


@shared_task(name="payments.reload")
def reload() -> None:
    """Pay credit ahead where it is low, and finish what was begun."""
    for tenant_id in money_in_sweep.reloading():
        _guarded(_look_again, reload_if_low, tenant_id)


def _look_again(act: Callable[..., object], *ids: UUID | str) -> None:
    """If the provider is away, the next sweep comes again."""
    try:
        act(*ids, provider())
    except WorldError as away:
        log.warning("%s waits: %s", ids, away.message)


def _guarded(act: Callable[..., object], *given: object) -> None:
    try:
        act(*given)
    except Exception:
        log.exception("%s could not be worked on; the next sweep tries again", given)


def uncollected() -> list[tuple[UUID, UUID]]:
    """Invoices to be collected whose turn it is: no run yet, or one that nobody holds."""
    now = clock.now()
    its_turn = Q(payment_run__isnull=True) | Q(
        Q(payment_run__lease_until__isnull=True) | Q(payment_run__lease_until__lt=now),
        payment_run__next_attempt_at__lte=now,
    )
    with system_scope("the sweep looks for invoices to collect"):
        return list(
            Invoice.objects.filter(its_turn, collection_state=Invoice.Collection.PENDING)
            .order_by("created_at")
            .values_list("tenant_id", "id")[:SWEEP_MAX]
        )


def _unheard_of() -> list[tuple[UUID, UUID]]:
    """Open invoices nobody told us about for a while: paid meanwhile, or given a card to charge."""
    now = clock.now()
    with system_scope("the sweep looks for payments nobody told of"):
        return list(
            PaymentRun.objects.filter(
                invoice__collection_state=Invoice.Collection.AWAITING_PAYMENT,
                checked_at__lt=now - LOOK_AGAIN_AFTER,
                next_attempt_at__lte=now,
            )
            .order_by("checked_at")
            .values_list("tenant_id", "invoice_id")[:SWEEP_MAX]
        )


def _unissued() -> list[tuple[UUID, UUID]]:
    """Notes of invoices that a provider has, unless a person has to look at them first."""
    takes_notes = [Invoice.Status.OPEN, Invoice.Status.PAID, Invoice.Status.UNCOLLECTIBLE]
    with system_scope("the sweep looks for credit notes to issue"):
        issued = PaymentStep.objects.filter(
            subject_id=OuterRef("id"),
            kind=PaymentStep.Kind.CREDIT_NOTE,
            state=PaymentStep.State.DONE,
        )
        return list(
            CreditNote.objects.filter(
                ~Exists(issued),
                total_minor__gt=0,
                invoice__status__in=takes_notes,
                invoice__payment_run__provider_invoice_id__isnull=False,
            )
            .exclude(invoice__collection_state=Invoice.Collection.PARKED)
            .order_by("created_at", "id")
            .values_list("tenant_id", "id")[:SWEEP_MAX]
        )


def _unrefunded() -> list[tuple[UUID, UUID]]:
    with system_scope("the sweep looks for refunds to send"):
        return list(
            Refund.objects.filter(state=Refund.State.ASKED)
            .order_by("created_at")
            .values_list("tenant_id", "id")[:SWEEP_MAX]
        )
