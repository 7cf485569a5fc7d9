"""Stripe's webhooks in: verify, store by id, answer. What an event is about is re-read later.

Guarantees: nothing is stored of a request whose signature, age, version or mode is wrong; an
event is stored once; the answer does not wait for anything but one insert.
"""

import logging

import msgspec
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError

from billing.payments.models import WebhookEvent
from billing.payments.provider import EventRefused
from billing.payments.stripe import read_event
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

PAYLOAD_BYTES_MAX = 512 * 1024


@csrf_exempt
@require_POST
def stripe_webhook(request: HttpRequest) -> HttpResponse:
    """200 for an authentic event, new or known; 400 for anything else."""
    payload = request.body
    signature = request.headers.get("Stripe-Signature", "")
    try:
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise EventRefused("the payload is too large")
        event = read_event(payload, signature, settings.STRIPE_WEBHOOK_SECRETS)
    except EventRefused as refused:
        log.warning("a webhook was refused: %s", refused)
        return JsonResponse({"error": str(refused)}, status=400)
    with system_scope("a provider's event belongs to no tenant yet"):
        _, is_new = WebhookEvent.objects.get_or_create(
            event_id=event.event_id,
            defaults={"type": event.type, "payload": msgspec.json.decode(payload)},
        )
        if is_new:
            transaction.on_commit(lambda: _ring(event.event_id))
    return JsonResponse({"received": True})


def _ring(event_id: str) -> None:
    """Ask a worker to look now. If the broker is away, the sweep finds the event."""
    from billing.payments.tasks import process_webhook

    try:
        process_webhook.apply_async(args=(event_id,), retry=False)
    except OperationalError:
        log.warning("the broker is away; the sweep will process %s", event_id)
