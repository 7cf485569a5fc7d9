"""Celery's entries into payments. Arguments are ids; each looks for work and finishes it."""

import logging
from uuid import UUID

from celery import shared_task

from billing.invoicing.models import Invoice
from billing.payments import collect as collection
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

SWEEP_MAX = 200  # a sweep every 30 s: 24,000 an hour


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
    try:
        collection.collect(UUID(tenant_id), UUID(invoice_id), provider())
    except WorldError as away:
        log.warning("invoice %s waits: %s", invoice_id, away.message)


@shared_task(name="payments.sweep")
def sweep() -> None:
    """Whatever was left: unprocessed events, and runs that were begun and not finished."""
    with system_scope("the sweep looks for unfinished work"):
        events = list(
            WebhookEvent.objects.filter(processed_at__isnull=True)
            .order_by("received_at")
            .values_list("event_id", flat=True)[:SWEEP_MAX]
        )
        runs = list(
            PaymentRun.objects.filter(
                next_attempt_at__lte=clock.now(),
                invoice__collection_state=Invoice.Collection.PENDING,
            ).values_list("tenant_id", "invoice_id")[:SWEEP_MAX]
        )
    for event_id in events:
        process_webhook(event_id)
    for tenant_id, invoice_id in runs:
        collect(str(tenant_id), str(invoice_id))
