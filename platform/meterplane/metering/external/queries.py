"""Reads of external events: as they were sent, what holds of them now, and how it came to that.

Every function needs the system's door; `tenant_id` narrows it. Lists are by receipt, the newest
first: what a person looks for is what was sent last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from meterplane.kernel.errors import CallerError
from meterplane.metering.external.exact_json import canonical, decode
from meterplane.metering.external.receipts import (
    EVENT_COLUMNS,
    EVENT_SOURCE,
    StoredEvent,
    stored_by_key,
    stored_event,
)
from meterplane.metering.reading import read

PAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An event and what holds of it: `at` and `data` after `overlays` corrections.

    `counts`: a meter sees it. False once it was deprecated or replaced, while its backfill is open,
    and after that was reverted.
    """

    event: StoredEvent
    at: datetime
    data: str
    counts: bool
    overlays: int


@dataclass(frozen=True, slots=True)
class Overlay:
    """One correction. The digests are of the time and data that counted; None where none did."""

    number: int
    kind: str
    at: datetime
    data: str
    counts: bool
    reason: str
    made_by: str
    made_at: datetime
    digest_before: bytes | None
    digest_after: bytes | None
    backfill_id: UUID | None


_SHOWN = f"""
SELECT {EVENT_COLUMNS}, COALESCE(o.event_at, e.event_at), COALESCE(o.data, e.data)::text,
       COALESCE(o.counts, true) AND COALESCE(b.state, 'closed') = 'closed', COALESCE(o.number, 0)
  FROM {EVENT_SOURCE}
  LEFT JOIN backfill b ON b.tenant_id = e.tenant_id AND b.id = e.backfill_id
  LEFT JOIN LATERAL (
    SELECT * FROM event_overlay o WHERE o.tenant_id = e.tenant_id AND o.receipt_id = e.id
     ORDER BY o.number DESC LIMIT 1) o ON true
"""  # noqa: S608  the columns are constants
# What a list may be narrowed by; the instants are those that hold.
_FILTERS = {
    "tenant_id": "e.tenant_id = %(tenant_id)s",
    "type": "e.type = %(type)s",
    "source": "e.source = %(source)s",
    "event_id": "e.event_id = %(event_id)s",
    "start": "COALESCE(o.event_at, e.event_at) >= %(start)s",
    "end": "COALESCE(o.event_at, e.event_at) < %(end)s",
    "before": "e.id < %(before)s",
}
_HISTORY = """
SELECT number, kind, event_at, data::text, counts, reason, made_by, made_at, digest_before,
       digest_after, backfill_id
  FROM event_overlay WHERE tenant_id = %(tenant_id)s AND receipt_id = %(id)s ORDER BY number
"""


def list_events(narrowed: Mapping[str, Any], rows_max: int) -> list[ShownEvent]:
    """The newest receipts of those that `narrowed` (names of `_FILTERS`; None: any) leaves."""
    asked = {name: value for name, value in narrowed.items() if value is not None}
    conditions = " AND ".join(_FILTERS[name] for name in asked) or "true"
    rows = read(
        f"{_SHOWN} WHERE {conditions} ORDER BY e.id DESC LIMIT %(rows_max)s",
        asked | {"rows_max": min(rows_max, PAGE_MAX)},
    )
    return [_shown(row) for row in rows]


def event_by_receipt(receipt_id: UUID) -> ShownEvent:
    """Raises `CallerError` 404 `event_not_found`."""
    rows = read(f"{_SHOWN} WHERE e.id = %(id)s", {"id": receipt_id})
    if not rows:
        raise CallerError("event_not_found", "There is no event with this receipt.", status=404)
    return _shown(rows[0])


def receipt_of(tenant_id: UUID, source: str, event_id: str) -> UUID:
    """The receipt of the event that is known by its own id. Raises `CallerError` 404."""
    key = (tenant_id, source, event_id)
    found = None if "\0" in source + event_id else stored_by_key([key]).get(key)
    if found is None:
        raise CallerError(
            "event_not_found", "This organisation has no event of this source and id.", status=404
        )
    return found.id


def history_of(event: StoredEvent) -> list[Overlay]:
    """Its overlays, the first one first."""
    rows = read(_HISTORY, {"tenant_id": event.tenant_id, "id": event.id})
    return [
        Overlay(
            row[0], row[1], row[2].astimezone(UTC), _canonical(row[3]), row[4], row[5], row[6],
            row[7].astimezone(UTC), _digest(row[8]), _digest(row[9]), row[10],
        )
        for row in rows
    ]  # fmt: skip


def _shown(row: tuple[Any, ...]) -> ShownEvent:
    width = len(StoredEvent.__slots__)
    at, data, counts, overlays = row[width:]
    return ShownEvent(
        stored_event(row[:width]), at.astimezone(UTC), _canonical(data), counts, overlays
    )


def _canonical(text: str) -> str:
    return canonical(decode(text.encode()))


def _digest(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
