"""Process stored events: re-read the object each is about, apply its present state.

An event is a hint. Lost, doubled, late and in any order they end in the same state, because what is
applied is what the provider says now, and `mirror` only ever moves forward. Which objects are
looked at stands in `ACTS`: a type, and the act that re-reads one of them by its id.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from billing.payments.correction_events import HEARD
from billing.payments.disputes import mirror_dispute
from billing.payments.heard import MONEY_IN, heard
from billing.payments.inbox import note_processed
from billing.payments.mirror import mirror
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.provider import PaymentProvider, ProviderRefused
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

# Takes the object's id at the provider; what came of it, in words for an operator.
Act = Callable[[str, PaymentProvider], str]


def process_event(event_id: str, provider: PaymentProvider) -> str:
    """Process one event; what came of it. Processing a processed event changes nothing.

    Raises `WorldError` when the provider is away: the event stays unprocessed.
    """
    with system_scope("an event is looked up by its id"):
        event = WebhookEvent.objects.get(event_id=event_id)
    if event.processed_at is not None:
        return event.outcome
    outcome = _apply(event, provider)
    note_processed(event_id, outcome)
    return outcome


def _apply(event: WebhookEvent, provider: PaymentProvider) -> str:
    about = (event.payload.get("data") or {}).get("object") or {}
    if (told := HEARD.get(str(about.get("object")))) is not None:
        return told(about, provider)
    if about.get("object") in MONEY_IN:
        return heard(about, provider)
    act = ACTS.get(str(about.get("object")))
    if act is None:
        return f"nothing is done for {about.get('object') or 'what has no type'}"
    return act(str(about.get("id", "")), provider)


def _invoice(their_id: str, provider: PaymentProvider) -> str:
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


ACTS: Mapping[str, Act] = {
    "invoice": _invoice,
    "dispute": mirror_dispute,
}

# By the object that is acted on: the types that tell of each change that matters here. A webhook
# endpoint that sends less leaves the rest to the hourly look at the list.
EVENTS_NEEDED: Mapping[str, Sequence[str]] = {
    "invoice": (
        "invoice.finalized",
        "invoice.marked_uncollectible",
        "invoice.paid",
        "invoice.payment_action_required",
        "invoice.payment_failed",
        "invoice.updated",
        "invoice.voided",
    ),
    "charge": ("charge.refunded",),
    "dispute": (
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.dispute.funds_reinstated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
    ),
    "refund": ("refund.created", "refund.failed", "refund.updated"),
    "credit_note": ("credit_note.created", "credit_note.updated", "credit_note.voided"),
    "checkout.session": (
        "checkout.session.async_payment_failed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.completed",
        "checkout.session.expired",
    ),
    "payment_intent": (
        "payment_intent.canceled",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
    ),
    "customer": ("customer.updated",),
}
