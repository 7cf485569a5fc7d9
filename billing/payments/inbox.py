"""The inbox of provider events: stored once by id, tried until processed, replayed on demand.

Guarantees: an event is new exactly once, however it came. One that cannot be processed waits at
growing distances, so that it keeps no other waiting, and says why. Only what was processed, and
what the provider itself has long forgotten, is forgotten.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from django.db import connection, transaction

from billing.payments.doorbell import ring
from billing.payments.models import WebhookEvent
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

TRY_AGAIN_AFTER = timedelta(seconds=15)
TRY_AGAIN_AFTER_MAX = timedelta(hours=1)
ALARM_FAILURES = 5  # after eight minutes of trying in vain
KEPT = timedelta(days=90)  # the provider keeps them for 30
FORGOTTEN_MAX = 10_000  # by one run
TEXT_MAX = 300
ROWS_MAX = 1000

_STORE = """
INSERT INTO webhook_event (event_id, type, payload, origin, received_at, try_at, outcome)
VALUES (%s, %s, %s, %s, %s, %s, '')
ON CONFLICT (event_id) DO NOTHING
"""
_FORGET = """
DELETE FROM webhook_event WHERE event_id IN (
  SELECT event_id FROM webhook_event
   WHERE processed_at < %(before)s AND received_at < %(before)s LIMIT %(most)s)
"""


def take_in(event_id: str, type_: str, payload: bytes | Mapping[str, Any], origin: str) -> bool:
    """Store an event and have it processed soon; False if it is known. Needs the system's door.

    Raises `django.db.DataError` for JSON that PostgreSQL cannot hold, such as a zero character.
    """
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    now = clock.now()
    with connection.cursor() as cursor:
        cursor.execute(_STORE, [event_id, type_, raw.decode(), origin, now, now])
        is_new = bool(cursor.rowcount)
    if is_new:
        transaction.on_commit(lambda: ring(event_id))
    return is_new


def note_failure(event_id: str, reason: str) -> None:
    """It could not be processed now; the sweep tries again, later each time."""
    with system_scope("an event could not be processed"):
        event = WebhookEvent.objects.select_for_update().get(event_id=event_id)
        if event.processed_at is not None:
            return
        pause = min(TRY_AGAIN_AFTER * 2 ** min(event.failures, 10), TRY_AGAIN_AFTER_MAX)
        event.failures += 1
        event.failure, event.try_at = reason[:TEXT_MAX], clock.now() + pause
        event.save(update_fields=["failures", "failure", "try_at"])
    say = log.error if event.failures >= ALARM_FAILURES else log.warning
    say("event %s was not processed, %d times by now: %s", event_id, event.failures, reason)


def note_processed(event_id: str, outcome: str) -> None:
    """It is behind us; whoever came first has said so."""
    with system_scope("an event was processed"):
        WebhookEvent.objects.filter(event_id=event_id, processed_at__isnull=True).update(
            processed_at=clock.now(), outcome=outcome[:TEXT_MAX], failure=""
        )


def due_events(most: int) -> list[str]:
    """Which are to be tried now, those that wait longest first."""
    with system_scope("the sweep looks for events"):
        return list(
            WebhookEvent.objects.filter(processed_at__isnull=True, try_at__lte=clock.now())
            .order_by("try_at")
            .values_list("event_id", flat=True)[:most]
        )


def process_again(event_id: str) -> WebhookEvent:
    """Have an event processed once more, whatever came of it before. Needs the system's door.

    What it is about is read anew and only ever moved forward: this cannot do harm. Raises
    `CallerError` `event_unknown`.
    """
    found = WebhookEvent.objects.filter(event_id=event_id).update(
        processed_at=None, failures=0, failure="", try_at=clock.now()
    )
    if not found:
        raise CallerError("event_unknown", f"There is no event {event_id}.", status=404)
    transaction.on_commit(lambda: ring(event_id))
    return WebhookEvent.objects.get(event_id=event_id)


def events_listed(
    *, type_: str = "", state: str = "", before: Any = None, most: int = ROWS_MAX
) -> list[WebhookEvent]:
    """Newest first. `state`: waiting, failing, processed, or all. Needs the system's door."""
    rows = WebhookEvent.objects.order_by("-received_at", "-event_id")
    if type_:
        rows = rows.filter(type=type_)
    if state == "processed":
        rows = rows.filter(processed_at__isnull=False)
    elif state:
        rows = rows.filter(processed_at__isnull=True)
    if state == "failing":
        rows = rows.filter(failures__gt=0)
    if before is not None:
        rows = rows.filter(received_at__lt=before)
    return list(rows[: min(most, ROWS_MAX)])


def forget_old() -> int:
    """Drop what was processed and received long ago; how many."""
    with system_scope("old events are dropped"), connection.cursor() as cursor:
        cursor.execute(_FORGET, {"before": clock.now() - KEPT, "most": FORGOTTEN_MAX})
        return int(cursor.rowcount)
