"""Webhooks of Stripe's, verified on their raw bytes before anything in them is looked at."""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
import stripe
from django.conf import settings

from billing.payments.provider import EventRefused, ProviderEvent
from billing.payments.stripe.client import API_VERSION, LIVE_PREFIXES

SIGNATURE_AGE_S_MAX = 300
WEBHOOK_SECRET_SHAPE = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,}")


class _About(msgspec.Struct):
    object: str
    id: str = ""


class _Data(msgspec.Struct):
    object: _About


class _Event(msgspec.Struct):
    """The parts of a snapshot event that are looked at."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    type: Annotated[str, msgspec.Meta(max_length=100)]
    data: _Data
    api_version: str | None
    livemode: bool


def read_event(payload: bytes, signature: str, secrets: Sequence[str]) -> ProviderEvent:
    """A webhook, verified on its raw bytes. Raises `EventRefused` naming what is wrong.

    Any of `secrets` may have signed it: two during a rotation. No secret, no event.
    """
    usable = [secret for secret in secrets if WEBHOOK_SECRET_SHAPE.fullmatch(secret)]
    if not usable:
        raise EventRefused("no webhook secret is configured")
    if not any(_signed_by(secret, payload, signature) for secret in usable):
        raise EventRefused("the signature does not match, or is too old")
    try:
        event = msgspec.json.decode(payload, type=_Event)
    except msgspec.DecodeError:  # another shape too: a thin event, or not JSON at all
        raise EventRefused("the payload is not a snapshot event") from None
    if event.api_version != API_VERSION:
        raise EventRefused(f"the event is of API version {event.api_version!r}")
    if event.livemode != settings.STRIPE_API_KEY.startswith(LIVE_PREFIXES):
        raise EventRefused("the event is of the other mode, live or test")
    about = event.data.object
    return ProviderEvent(event.id, event.type, about.object, about.id)


def _signed_by(secret: str, payload: bytes, signature: str) -> bool:
    try:
        return bool(
            stripe.WebhookSignature.verify_header(
                payload.decode(), signature, secret, SIGNATURE_AGE_S_MAX
            )
        )
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
