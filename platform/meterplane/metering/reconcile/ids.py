"""Journal against events, id by id, for the requests of one hour.

One statement, and so one snapshot: ingest commits events and their segment together, so that an id
of a manifest without an event is missing, and not late. What is late has no manifest yet either.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from meterplane.contracts import usage
from meterplane.metering.parse import event_id_of
from meterplane.metering.reading import events_in, read
from meterplane.metering.reconcile.spread import HOUR

IDS_SHOWN_MAX = 100  # as `reconciliation` holds
QUARANTINED_READ_MAX = 10_000

# The server and the model are part of what is held to each other: an event that says another one is
# missing here and extra there. An event of a segment without a manifest has no witness; one whose
# manifest is not yet sorted by hour is as late as its segment.
_COMPARE = """
WITH journal AS MATERIALIZED (
  SELECT DISTINCT ON (id) id, model, server
    FROM journal_manifest, unnest(ids) AS id
   WHERE hour = %(hour)s
   ORDER BY id, segment_id
), events AS MATERIALIZED (
  SELECT request_id AS id, model, server, segment_id,
         row_number() OVER (PARTITION BY request_id ORDER BY tenant_id) AS copy
    FROM usage_event
   WHERE {events}
), both_sides AS (
  SELECT COALESCE(j.model, e.model) AS model, COALESCE(j.server, e.server) AS server,
         COALESCE(j.id, e.id) AS id, j.id IS NOT NULL AS in_journal, e.id IS NOT NULL AS in_events,
         CASE
           WHEN j.id IS NOT NULL OR e.copy > 1 THEN ''
           WHEN s.segment_id IS NULL THEN ''
           WHEN s.manifest IS NOT NULL THEN 'late'
           WHEN NOT EXISTS (SELECT FROM journal_manifest m WHERE m.segment_id = e.segment_id)
             THEN 'unwitnessed'
           ELSE ''
         END AS excuse
    FROM journal j
    FULL JOIN events e ON (j.id, j.model, j.server) = (e.id, e.model, e.server) AND e.copy = 1
    LEFT JOIN journal_segment s ON j.id IS NULL AND s.segment_id = e.segment_id
)
SELECT model, server,
       count(*) FILTER (WHERE in_journal),
       count(*) FILTER (WHERE in_events),
       count(*) FILTER (WHERE NOT in_events),
       (array_agg(id ORDER BY id) FILTER (WHERE NOT in_events))[:%(shown)s],
       count(*) FILTER (WHERE NOT in_journal AND excuse = ''),
       (array_agg(id ORDER BY id) FILTER (WHERE NOT in_journal AND excuse = ''))[:%(shown)s],
       count(*) FILTER (WHERE excuse = 'late'),
       count(*) FILTER (WHERE excuse = 'unwitnessed')
  FROM both_sides
 GROUP BY model, server
 ORDER BY model, server
"""

_QUARANTINED = """
SELECT DISTINCT q.id, q.payload
  FROM usage_quarantine q
 WHERE q.segment_id IN (SELECT segment_id FROM journal_manifest WHERE hour = %(hour)s)
 ORDER BY q.id
 LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Ids:
    """The requests of one model on one server. `missing` and `extra` name the first of theirs."""

    journal: int = 0
    events: int = 0
    missing_count: int = 0
    missing: list[UUID] = field(default_factory=list)
    extra_count: int = 0
    extra: list[UUID] = field(default_factory=list)
    late: int = 0
    unwitnessed: int = 0

    def __add__(self, other: "Ids") -> "Ids":
        """Both together."""
        return Ids(
            self.journal + other.journal,
            self.events + other.events,
            self.missing_count + other.missing_count,
            sorted(self.missing + other.missing)[:IDS_SHOWN_MAX],
            self.extra_count + other.extra_count,
            sorted(self.extra + other.extra)[:IDS_SHOWN_MAX],
            self.late + other.late,
            self.unwitnessed + other.unwitnessed,
        )


def compare_ids(hour: datetime) -> dict[tuple[str, str], Ids]:
    """By model and server, whatever either side has. Needs the system's door."""
    inside, parameters = events_in(hour, hour + HOUR, "hour")
    rows = read(
        _COMPARE.format(events=inside), {"hour": hour, "shown": IDS_SHOWN_MAX, **parameters}
    )
    return {
        (row[0], row[1]): Ids(
            row[2], row[3], row[4], row[5] or [], row[6], row[7] or [], row[8], row[9]
        )
        for row in rows
    }


def quarantined(hour: datetime) -> set[UUID]:
    """Ids of requests that were set aside, of the segments this hour's requests came in."""
    rows = read(_QUARANTINED, {"hour": hour, "most": QUARANTINED_READ_MAX})
    return {found for _, payload in rows if (found := _id_of(bytes(payload))) is not None}


def _id_of(payload: bytes) -> UUID | None:
    """Of a frame as the journal has it, or of a row as staging had it."""
    try:
        frame: Any = usage.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        frame = None
    if isinstance(frame, usage.Settle):
        return event_id_of(frame)
    try:
        return UUID(msgspec.json.decode(payload, type=dict[str, Any])["request_id"])
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError):
        return None
