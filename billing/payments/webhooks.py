"""Stripe's webhooks in: verify, store by id, answer. What an event is about is re-read later.

Guarantees: nothing is stored of a request whose signature, age, version, mode or account is wrong;
an event is stored once; the answer waits for one insert and for nothing else, neither provider nor
broker.
"""

import logging

from django.conf import settings
from django.db import DataError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.payments.inbox import take_in
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
        _store(event.event_id, event.type, payload)
    except EventRefused as refused:
        log.warning("a webhook was refused: %s", refused)
        return JsonResponse({"error": str(refused)}, status=400)
    return JsonResponse({"received": True})


def _store(event_id: str, type_: str, payload: bytes) -> None:
    try:
        with system_scope("a provider's event belongs to no tenant yet"):
            take_in(event_id, type_, payload, WebhookEvent.Origin.DELIVERED)
    except DataError:
        raise EventRefused("the payload has characters that cannot be stored") from None
