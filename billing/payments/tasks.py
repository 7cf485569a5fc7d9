"""Celery's entries into payments. Arguments are ids; each looks for work and finishes it.

The sweep finds everything that is left, so that no message needs to arrive: events, invoices not
collected yet, and invoices whose customer paid without our being told.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.db.models import Q

from billing.invoicing.models import Invoice
from billing.payments import collect as collection
from billing.payments import dun as dunning
from billing.payments.by_hand import is_by_hand, issue
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

SWEEP_MAX = 200  # of each kind; a sweep every 30 s: 24,000 an hour
LOOK_AGAIN_AFTER = timedelta(minutes=15)  # a payment whose webhook was lost is seen within this


@shared_task(name="payments.process_webhook")
def process_webhook(event_id: str) -> None:
    """Process one stored event; if the provider is away, the sweep does it later."""
    try:
        process_event(event_id, provider())
    except WorldError as away:
        log.warning("event %s waits: %s", event_id, away.message)


@shared_task(name="payments.collect")
def collect(tenant_id: str, invoice_id: str) -> None:
    """Bring one invoice as far as it goes now."""
    tenant, invoice = UUID(tenant_id), UUID(invoice_id)
    try:
        if is_by_hand(tenant, invoice):
            issue(tenant, invoice)  # where there is no provider at all, too
        else:
            collection.collect(tenant, invoice, provider())
    except WorldError as away:
        log.warning("invoice %s waits: %s", invoice_id, away.message)


@shared_task(name="payments.dun")
def dun() -> None:
    """Whatever is due of the cases of unpaid invoices."""
    dunning.dun(provider)


@shared_task(name="payments.sweep")
def sweep() -> None:
    """Whatever was left. One piece of work that fails does not keep the others waiting."""
    for event_id in _unprocessed_events():
        _guarded(process_webhook, event_id)
    for tenant_id, invoice_id in [*_uncollected(), *_unheard_of()]:
        _guarded(collect, str(tenant_id), str(invoice_id))


def _guarded(act: Callable[..., object], *ids: object) -> None:
    try:
        act(*ids)
    except Exception:
        log.exception("%s could not be worked on; the next sweep tries again", ids)


def _unprocessed_events() -> list[str]:
    with system_scope("the sweep looks for events"):
        return list(
            WebhookEvent.objects.filter(processed_at__isnull=True)
            .order_by("received_at")
            .values_list("event_id", flat=True)[:SWEEP_MAX]
        )


def _uncollected() -> list[tuple[UUID, UUID]]:
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
