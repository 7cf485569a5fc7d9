"""Events that were never delivered: the provider's own list is read, and the inbox gets the rest.

Guarantees: the watermark passes an instant only once every event of before it is stored; a run that
dies repeats its last slice. Each run begins `OVERLAP` before the watermark: what the provider lists
late, and clocks that differ, cost nothing, as known events are not stored again. After an outage
all is read that the provider still has, `SLICES_MAX` slices a run.

Does not process: what is stored is processed like what was delivered, by re-reading.
"""

import logging
from datetime import datetime, timedelta

from django.db.models import Min

from billing.payments.inbox import take_in
from billing.payments.models import BillingAccount, EventWatermark, WebhookEvent
from billing.payments.provider import PaymentProvider
from meterplane.kernel import clock
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

LISTED_FOR = timedelta(days=30)  # Stripe forgets events then
OVERLAP = timedelta(hours=1)
AHEAD = timedelta(minutes=5)  # the provider's clock against ours
SLICE_MAX, SLICE_MIN = timedelta(days=1), timedelta(seconds=1)
EVENTS_MAX = 2_000  # of one slice: 20 pages
SLICES_MAX = 200  # at 25 calls a second, 20 for each: under three minutes


def catch_up(provider: PaymentProvider) -> int:
    """Store what never came; how many events that were.

    Raises `WorldError` when the provider is away: what was read so far stands.
    """
    now = clock.now()
    start, until = max(_watermark(provider, now) - OVERLAP, now - LISTED_FOR), now + AHEAD
    slice_, found = SLICE_MAX, 0
    for _ in range(SLICES_MAX):
        if start >= until:
            return found
        end = min(start + slice_, until)
        most = EVENTS_MAX if end - start > SLICE_MIN else None
        events = provider.events_between(start, end, most)
        if events is None:
            slice_ = max((end - start) // 2, SLICE_MIN)
            continue
        with system_scope("events that were never delivered"):
            new = [
                event.event_id
                for event in reversed(events)  # listed newest first
                if take_in(event.event_id, event.type, event.payload, WebhookEvent.Origin.LISTED)
            ]
            _pass(provider, min(end, now))
        found += len(new)
        start, slice_ = end, min(slice_ * 2, SLICE_MAX)
    log.warning("events were read up to %s; the next run goes on", start)
    return found


def _watermark(provider: PaymentProvider, now: datetime) -> datetime:
    """Where the last run came to; before there was one, when the first customer was made."""
    with system_scope("up to when events were read"):
        mark = EventWatermark.objects.filter(provider=provider.name).first()
        first: datetime | None = BillingAccount.objects.filter(provider=provider.name).aggregate(
            at=Min("created_at")
        )["at"]
    if mark is not None:
        read_until: datetime = mark.read_until
        return read_until
    return first or now


def _pass(provider: PaymentProvider, instant: datetime) -> None:
    """Only ever forward. Needs the system's door."""
    EventWatermark.objects.get_or_create(provider=provider.name, defaults={"read_until": instant})
    EventWatermark.objects.filter(provider=provider.name, read_until__lt=instant).update(
        read_until=instant
    )
