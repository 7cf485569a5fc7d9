"""Process stored events: re-read the object each is about, apply its present state.

An event is a hint. Lost, doubled, late and in any order they end in the same state, because what is
applied is what the provider says now, and `mirror` only ever moves forward.
"""

import logging
from uuid import UUID

from billing.payments.correction_events import HEARD
from billing.payments.mirror import mirror
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.provider import PaymentProvider, ProviderRefused
from meterplane.kernel import clock
from tenants.scoping import system_scope

log = logging.getLogger(__name__)


def process_event(event_id: str, provider: PaymentProvider) -> str:
    """Process one event; what came of it. Processing a processed event changes nothing.

    Raises `WorldError` when the provider is away: the event stays unprocessed.
    """
    with system_scope("an event is looked up by its id"):
        event = WebhookEvent.objects.get(event_id=event_id)
    if event.processed_at is not None:
        return event.outcome
    outcome = _apply(event, provider)
    with system_scope("an event was processed"):
        WebhookEvent.objects.filter(event_id=event_id, processed_at__isnull=True).update(
            processed_at=clock.now(), outcome=outcome[:300]
        )
    return outcome


def _apply(event: WebhookEvent, provider: PaymentProvider) -> str:
    about = (event.payload.get("data") or {}).get("object") or {}
    if (heard := HEARD.get(str(about.get("object")))) is not None:
        return heard(about, provider)
    if about.get("object") != "invoice":
        return "not about an invoice"
    their_id = str(about.get("id", ""))
    with system_scope("whose invoice an event is about"):
        found = (
            PaymentRun.objects.filter(provider=provider.name, provider_invoice_id=their_id)
            .values_list("tenant_id", "invoice_id")
            .first()
        )
    if found is None:
        return "not an invoice of ours"
    tenant_id, invoice_id = found
    return refresh(tenant_id, invoice_id, their_id, provider)


def refresh(tenant_id: UUID, invoice_id: UUID, their_id: str, provider: PaymentProvider) -> str:
    """Re-read one invoice and apply what it is now."""
    try:
        theirs = provider.invoice(their_id)
    except ProviderRefused as refused:
        log.error("invoice %s cannot be read: %s", their_id, refused.message)
        return f"cannot be read: {refused.code}"
    moved = mirror(tenant_id, invoice_id, theirs)
    return f"{theirs.status}{'' if moved else ', as known'}"
