"""Events of Stripe's: webhooks, verified on their raw bytes before anything in them is looked at,
and the list of all of them."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import stripe
from django.conf import settings

from billing.payments.events_port import ListedEvent
from billing.payments.provider import EventRefused, ProviderEvent
from billing.payments.stripe.client import LIST_PAGE, Client, translated
from billing.payments.stripe_settings import API_VERSION, WEBHOOK_SECRET_SHAPE, is_live

SIGNATURE_AGE_S_MAX = 300


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
    account: str | None = None  # of a connected account's events, and of no other


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
    if event.livemode != is_live(settings.STRIPE_API_KEY):
        raise EventRefused("the event is of the other mode, live or test")
    if event.account is not None and event.account != settings.STRIPE_ACCOUNT_ID:
        raise EventRefused(f"the event is of another account, {event.account!r}")
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


class EventList(Client):
    """The port's reads of events."""

    def events_between(
        self, start: datetime, end: datetime, most: int | None
    ) -> list[ListedEvent] | None:
        """The version that an event was rendered in is not looked at: it only names an object."""
        found: list[ListedEvent] = []
        with translated():
            page = self._client.v1.events.list(
                {
                    "limit": LIST_PAGE,
                    "created": {
                        "gte": math.floor(start.timestamp()),
                        "lt": math.ceil(end.timestamp()),
                    },
                }
            )
            for event in page.auto_paging_iter():
                if most is not None and len(found) == most:
                    return None
                payload = event.to_dict(for_json=True)
                found.append(ListedEvent(event.id, event.type, payload))
        return found
