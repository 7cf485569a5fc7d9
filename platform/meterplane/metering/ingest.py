"""One journal segment into PostgreSQL, in one transaction.

Guarantees: whatever the order, the number of copies and the number of workers, a request is one row
of `usage_event` and counted once in `usage_hour`, `usage_day`, `usage_tag_hour` and `usage_spend`;
a segment is recorded if and only if its events are. The only marker of "seen" is the row itself.
`usage_revision` of an organisation is higher after each transaction that added usage of it.

That the organisation has the key and the project of an event is asked here, of all of a segment
at once; the row of `usage_hour` that an event is added to is held to it by foreign keys.

Content that cannot become an event (a damaged frame, a key nobody issued, a day that was archived)
is kept in `usage_quarantine` with its reason and logged as an error; it never holds up the rest of
the journal. A message whose bytes are not the segment's is refused: the file is still on the
gateway's disk, and the shipper sends it again.
"""

import hashlib
import logging
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django.db import connection

from meterplane.contracts.usage import SegmentMessage, Settle, encode
from meterplane.journal.segment import SEGMENT_FILE_BYTES_MAX
from meterplane.kernel.errors import CallerError
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.ids import minted_on
from meterplane.metering import rows
from meterplane.metering.parse import ParsedSegment, SetAside, parse
from meterplane.metering.partitions import ensure_partitions
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

_LIST = ", ".join(rows.COLUMNS)
_SUMMED_BY = (
    "project_id, key_id, model, surface, status, price_version_id, currency, service_tier,"
    " deployment"
)
_SUMS = (
    "events", "requests", "tokens_in", "tokens_out", "rows", "bytes_in", "bytes_out", "cost_nano",
    "total_ms_sum", "tensor_bytes_in", "tensor_bytes_out", "compute_us_sum", "first_byte_ms_sum",
)  # fmt: skip
_ADDED = ", ".join(f"{name} = u.{name} + excluded.{name}" for name in _SUMS)

# As date_trunc in UTC, at a fifth of what that costs.
_HOUR = "date_bin('1 hour', event_at, TIMESTAMPTZ '2000-01-01 00:00:00+00')"

# One session-wide staging table: making one per segment would fill the system catalog.
_STAGING = f"""
CREATE TEMP TABLE IF NOT EXISTS usage_staging ON COMMIT DELETE ROWS
    AS SELECT {_LIST} FROM usage_event WITH NO DATA
"""  # noqa: S608  the columns are a constant

# Rows are inserted, and hours touched, in the order of their keys: two workers that meet wait for
# each other in one direction only. What was there already returns nothing, and so is not added.
_INSERT = f"""
WITH fresh AS (
  INSERT INTO usage_event ({_LIST}, segment_id)
  SELECT {", ".join("s." + name for name in rows.COLUMNS)}, %s
    FROM usage_staging s
    JOIN api_key k ON (k.tenant_id, k.id, k.project_id) = (s.tenant_id, s.key_id, s.project_id)
   ORDER BY s.tenant_id, s.event_day, s.request_id
  ON CONFLICT DO NOTHING
  RETURNING *
), hours AS (
  SELECT tenant_id, {_HOUR} AS hour, event_day, {_SUMMED_BY}, count(*) AS events,
         sum(requests) AS requests, sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out,
         sum(rows) AS rows, sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out,
         sum(cost_nano) AS cost_nano, sum(total_ms) AS total_ms_sum,
         sum(tensor_bytes_in) AS tensor_bytes_in, sum(tensor_bytes_out) AS tensor_bytes_out,
         sum(compute_us) AS compute_us_sum, sum(first_byte_ms) AS first_byte_ms_sum
    FROM fresh
   GROUP BY tenant_id, 2, event_day, {_SUMMED_BY}
), added_to_hours AS (
  INSERT INTO usage_hour AS u (tenant_id, hour, {_SUMMED_BY}, {", ".join(_SUMS)})
  SELECT tenant_id, hour, {_SUMMED_BY}, {", ".join(_SUMS)} FROM hours
   ORDER BY tenant_id, hour, {_SUMMED_BY}
  ON CONFLICT (tenant_id, hour, {_SUMMED_BY}) DO UPDATE SET {_ADDED}
), added_to_days AS (
  INSERT INTO usage_day AS u (tenant_id, day, {_SUMMED_BY}, {", ".join(_SUMS)})
  SELECT tenant_id, event_day, {_SUMMED_BY},
         {", ".join(f"sum({name})" for name in _SUMS)}
    FROM hours
   GROUP BY tenant_id, event_day, {_SUMMED_BY}
   ORDER BY tenant_id, event_day, {_SUMMED_BY}
  ON CONFLICT (tenant_id, day, {_SUMMED_BY}) DO UPDATE SET {_ADDED}
), added_to_tags AS (
  INSERT INTO usage_tag_hour AS u (tenant_id, hour, tag, value, project_id, key_id, model, status,
         currency, events, requests, tokens_in, tokens_out, cost_nano, total_ms_sum)
  SELECT tenant_id, {_HOUR}, t.key, t.value, project_id, key_id, model,
         status, currency, count(*), sum(requests), sum(tokens_in), sum(tokens_out), sum(cost_nano),
         sum(total_ms)
    FROM fresh, jsonb_each_text(tags) t
   WHERE tags <> '{{}}'
   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
   ORDER BY 1, 3, 2, 4, 5, 6, 7, 8, 9
  ON CONFLICT (tenant_id, tag, hour, value, project_id, key_id, model, status, currency)
  DO UPDATE SET
    events = u.events + excluded.events,
    requests = u.requests + excluded.requests,
    tokens_in = u.tokens_in + excluded.tokens_in,
    tokens_out = u.tokens_out + excluded.tokens_out,
    cost_nano = u.cost_nano + excluded.cost_nano,
    total_ms_sum = u.total_ms_sum + excluded.total_ms_sum
), spent AS (
  INSERT INTO usage_spend AS p (tenant_id, epoch, day, project_id, key_id, model, cost_nano)
  SELECT tenant_id, epoch, (admitted_at AT TIME ZONE 'UTC')::date, project_id, key_id,
         COALESCE(NULLIF(requested_model, ''), model), sum(cost_nano)
    FROM fresh
   WHERE epoch <> ''
   GROUP BY 1, 2, 3, 4, 5, 6
   ORDER BY 1, 2, 3, 4, 5, 6
  ON CONFLICT (tenant_id, epoch, day, project_id, key_id, model)
  DO UPDATE SET cost_nano = p.cost_nano + excluded.cost_nano
), revised AS (
  INSERT INTO usage_revision AS r (tenant_id, revision)
  SELECT DISTINCT tenant_id, 1 FROM fresh ORDER BY 1
  ON CONFLICT (tenant_id) DO UPDATE SET revision = r.revision + 1
)
SELECT count(*) FROM fresh
"""  # noqa: S608  the column list is the constant above

_STRANGERS = """
INSERT INTO usage_quarantine (segment_id, reason, payload)
SELECT %s, 'no such key in this project of this tenant',
       convert_to(row_to_json(s)::text, 'UTF8')
  FROM usage_staging s
  LEFT JOIN api_key k ON (k.tenant_id, k.id, k.project_id) = (s.tenant_id, s.key_id, s.project_id)
 WHERE k.id IS NULL
"""


class SegmentRefused(CallerError):
    """The message is not the segment it says it is. Nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__("segment_refused", message)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """How many events the segment held and how many of them were new."""

    events: int
    inserted: int
    quarantined: int = 0


def ingest_segment(message: SegmentMessage) -> IngestResult:
    """Take one segment in. Any number of times, by any number of workers.

    Raises `SegmentRefused` when the message was altered on its way, or when its segment was taken
    in before with other content; nothing is written then.
    """
    parsed = parse(message.segment_id, _body(message))
    closed = ensure_partitions(rows.days_of(parsed.settles))
    failpoint("ingest.segment.after_partitions")
    parsed = _of_open_days(parsed, closed) if closed else parsed
    settles, set_aside = parsed.settles, parsed.set_aside
    with system_scope("a gateway's journal holds many tenants' usage"), connection.cursor() as db:
        db.execute(
            "INSERT INTO journal_segment (segment_id, gateway, sha256, events, manifest)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                message.segment_id,
                message.gateway,
                message.sha256,
                len(settles),
                message.manifest or None,
            ],
        )
        if db.rowcount == 0:
            _refuse_other_content(db, message)
            return IngestResult(len(settles), 0)
        failpoint("ingest.segment.after_record")
        _set_aside(db, message.segment_id, set_aside)
        inserted, strangers = _insert(db, message.segment_id, settles) if settles else (0, 0)
        db.execute(
            "UPDATE journal_segment SET inserted = %s WHERE segment_id = %s",
            [inserted, message.segment_id],
        )
        failpoint("ingest.segment.before_commit")
    failpoint("ingest.segment.after_commit")
    quarantined = len(set_aside) + strangers
    if quarantined:
        log.error(
            "segment %s of %s: %s records quarantined",
            message.segment_id, message.gateway, quarantined,
        )  # fmt: skip
    return IngestResult(len(settles), inserted, quarantined)


def _of_open_days(parsed: ParsedSegment, closed: set[date]) -> ParsedSegment:
    """Without what is from a day whose events are in a file: it may well be in there already."""
    kept = ParsedSegment([], list(parsed.set_aside))
    for settle in parsed.settles:
        day = minted_on(settle.request_id)
        if day in closed:
            reason = f"its day, {day}, was archived before it came"
            kept.set_aside.append(SetAside(reason, encode(settle)))
        else:
            kept.settles.append(settle)
    return kept


def _refuse_other_content(db: Any, message: SegmentMessage) -> None:
    db.execute("SELECT sha256 FROM journal_segment WHERE segment_id = %s", [message.segment_id])
    if db.fetchone()[0] not in (message.sha256, ""):  # '': recorded before digests were kept
        raise SegmentRefused(f"segment {message.segment_id} was taken in with other content")


def _body(message: SegmentMessage) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(message.body, SEGMENT_FILE_BYTES_MAX + 1)
    except zlib.error as problem:
        raise SegmentRefused(f"segment {message.segment_id} is not zlib: {problem}") from None
    if len(body) > SEGMENT_FILE_BYTES_MAX:
        raise SegmentRefused(f"segment {message.segment_id} is larger than a segment can be")
    if hashlib.sha256(body).hexdigest() != message.sha256:
        raise SegmentRefused(f"segment {message.segment_id} does not have the digest it names")
    return body


def _insert(db: Any, segment_id: UUID, settles: Iterable[Settle]) -> tuple[int, int]:
    """Events inserted, and events of keys nobody issued."""
    db.execute(_STAGING)
    # Whoever calls from inside a transaction may have taken in another segment in it.
    db.execute("DELETE FROM usage_staging")
    with db.copy(f"COPY usage_staging ({_LIST}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(rows.copied(settles))
    failpoint("ingest.segment.after_copy")
    db.execute(_STRANGERS, [segment_id])
    strangers = int(db.rowcount)
    db.execute(_INSERT, [segment_id])
    failpoint("ingest.segment.after_insert")
    return int(db.fetchone()[0]), strangers


def _set_aside(db: Any, segment_id: UUID, items: Iterable[SetAside]) -> None:
    for item in items:
        db.execute(
            "INSERT INTO usage_quarantine (segment_id, reason, payload) VALUES (%s, %s, %s)",
            [segment_id, item.reason, item.payload],
        )
