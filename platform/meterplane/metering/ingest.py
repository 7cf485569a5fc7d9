"""Journal segments into PostgreSQL, in one transaction.

The problem: a segment of 1 MB holds 700 events, and what they add to the sums of an hour costs
three times what storing them does. Several together share that: behind an outage there are many.

Guarantees: whatever the order, the number of copies and the number of workers, a request is one row
of `usage_event` and counted once in `usage_hour`, `usage_day`, `usage_tag_hour` and `usage_spend`;
a segment is recorded if and only if its events are. The only marker of "seen" is the row itself.
`usage_month` is kept by PostgreSQL, from what is written to `usage_day`.
`usage_revision` of an organisation is higher after each transaction that added usage of it, and
says whether any was of what is settled (`arrivals`).

That the organisation has the key and the project of an event is asked here, of all of them at
once; the row of `usage_hour` that an event is added to is held to it by foreign keys.

Content that cannot become an event (a damaged frame, a key nobody issued, a day that was archived)
is kept in `usage_quarantine` with its reason and logged as an error; it never holds up the rest of
the journal. A message whose bytes are not the segment's is refused: the file is still on the
gateway's disk, and the shipper sends it again.
"""

import hashlib
import logging
import zlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, connection

from meterplane.contracts.usage import SegmentMessage, encode
from meterplane.journal.segment import SEGMENT_FILE_BYTES_MAX
from meterplane.kernel.errors import CallerError
from meterplane.kernel.failpoints import failpoint
from meterplane.metering import rows
from meterplane.metering.parse import SetAside, parse
from meterplane.metering.partitions import ensure_partitions
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

_LIST = ", ".join(rows.COLUMNS)
_SUMMED_BY = (
    "project_id, key_id, model, surface, status, price_version_id, currency, service_tier,"
    " deployment, priority, region, gpu_type"
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
  INSERT INTO usage_event ({_LIST})
  SELECT {", ".join("s." + name for name in rows.COLUMNS)}
    FROM usage_staging s
    JOIN api_key k ON (k.tenant_id, k.id, k.project_id) = (s.tenant_id, s.key_id, s.project_id)
   ORDER BY s.tenant_id, s.event_day, s.request_id, s.segment_id
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
  INSERT INTO usage_revision AS r (tenant_id, revision, added_from)
  SELECT tenant_id, 1, min(event_at) FROM fresh GROUP BY 1 ORDER BY 1
  ON CONFLICT (tenant_id) DO UPDATE SET
    revision = r.revision + 1,
    added_from = excluded.added_from,
    on_time = r.on_time + (excluded.added_from >= r.settled_until IS TRUE)::int
)
SELECT segment_id, count(*) FROM fresh GROUP BY segment_id
"""  # noqa: S608  the column list is the constant above

_STRANGERS = """
WITH strangers AS (
  INSERT INTO usage_quarantine (segment_id, reason, payload)
  SELECT s.segment_id, 'no such key in this project of this tenant',
         convert_to((to_jsonb(s) - 'segment_id')::text, 'UTF8')
    FROM usage_staging s
    LEFT JOIN api_key k ON (k.tenant_id, k.id, k.project_id) = (s.tenant_id, s.key_id, s.project_id)
   WHERE k.id IS NULL
  RETURNING segment_id
)
SELECT segment_id, count(*) FROM strangers GROUP BY segment_id
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


@dataclass(slots=True)
class _Taken:
    """A segment on its way in. `rows` are its events' in parts, `fresh` if nobody recorded it."""

    message: SegmentMessage
    events: int = 0
    rows: list[bytes] = field(default_factory=list)
    days: set[int] = field(default_factory=set)
    set_aside: list[SetAside] = field(default_factory=list)
    fresh: bool = False
    inserted: int = 0
    strangers: int = 0

    @property
    def quarantined(self) -> int:
        return len(self.set_aside) + self.strangers if self.fresh else 0


def ingest_segments(messages: Sequence[SegmentMessage]) -> list[IngestResult]:
    """Take segments in, in one transaction. Any number of times, by any number of workers.

    Raises `SegmentRefused` when a message was altered on its way, or when its segment was taken in
    before with other content; nothing of that one is written then, the others are taken in all the
    same. So they are where PostgreSQL refuses something of one: each is then tried by itself.
    """
    try:
        return _ingest(messages)
    except (DataError, IntegrityError):
        if len(messages) == 1:
            raise
        log.exception("%s segments are taken in one by one", len(messages))
    return _one_by_one(messages)


def ingest_segment(message: SegmentMessage) -> IngestResult:
    """Take one segment in."""
    return ingest_segments([message])[0]


def _one_by_one(messages: Sequence[SegmentMessage]) -> list[IngestResult]:
    results, refused = [], None
    for message in messages:
        try:
            results.append(ingest_segment(message))
        except (DataError, IntegrityError, SegmentRefused) as problem:
            refused = problem
    if refused is not None:
        raise refused
    return results


def _ingest(messages: Sequence[SegmentMessage]) -> list[IngestResult]:
    taken, refused = _read_all(messages)
    days = set().union(*(each.days for each in taken.values()))
    closed = ensure_partitions({rows.date_of(day) for day in days})
    failpoint("ingest.segment.after_partitions")
    if closed:
        taken, refused = _read_all(messages, closed)
    with system_scope("a gateway's journal holds many tenants' usage"), connection.cursor() as db:
        refused += _record(db, taken)
        failpoint("ingest.segment.after_record")
        fresh = {segment_id: each for segment_id, each in taken.items() if each.fresh}
        for segment_id, each in fresh.items():
            _set_aside(db, segment_id, each.set_aside)
        if any(each.events for each in fresh.values()):
            _insert(db, fresh)
        failpoint("ingest.segment.before_commit")
    failpoint("ingest.segment.after_commit")
    for segment_id, each in fresh.items():
        if each.quarantined:
            log.error(
                "segment %s of %s: %s records quarantined",
                segment_id, each.message.gateway, each.quarantined,
            )  # fmt: skip
    if refused:
        raise refused[0]
    of = [taken[message.segment_id] for message in messages]
    return [IngestResult(each.events, each.inserted, each.quarantined) for each in of]


def _read_all(
    messages: Iterable[SegmentMessage], closed: Container[date] = ()
) -> tuple[dict[UUID, _Taken], list[SegmentRefused]]:
    """What is in them, and what is wrong with those that were altered."""
    taken: dict[UUID, _Taken] = {}
    refused = []
    for message in messages:
        try:
            twin = taken.get(message.segment_id)
            if twin is not None and twin.message.sha256 != message.sha256:
                raise _other_content(message.segment_id)
            taken[message.segment_id] = _read(message, closed)
        except SegmentRefused as problem:
            refused.append(problem)
    return taken, refused


def _read(message: SegmentMessage, closed: Container[date]) -> _Taken:
    """What is from a `closed` day, whose events are in a file, may well be in there already."""
    read, segment_id = _Taken(message), message.segment_id.bytes
    for found in parse(message.segment_id, _body(message)):
        if isinstance(found, SetAside):
            read.set_aside.append(found)
            continue
        day = rows.day_of(found)
        if closed and rows.date_of(day) in closed:
            reason = f"its day, {rows.date_of(day)}, was archived before it came"
            read.set_aside.append(SetAside(reason, encode(found)))
            continue
        read.events += 1
        read.days.add(day)
        read.rows += rows.row(segment_id, found)
    return read


def _record(db: Any, taken: dict[UUID, _Taken]) -> list[SegmentRefused]:
    """Note each of them as taken in; those that were before with other content are returned.

    In the order of their ids: two workers that have one segment wait for each other in one
    direction only, whatever else they have.
    """
    each_of = sorted(taken.values(), key=lambda each: each.message.segment_id)
    db.execute(
        "INSERT INTO journal_segment (segment_id, gateway, sha256, events, manifest)"
        " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::int[], %s::bytea[])"
        " ON CONFLICT DO NOTHING RETURNING segment_id",
        [
            [each.message.segment_id for each in each_of],
            [each.message.gateway for each in each_of],
            [each.message.sha256 for each in each_of],
            [each.events for each in each_of],
            [each.message.manifest or None for each in each_of],
        ],
    )
    for (segment_id,) in db.fetchall():
        taken[segment_id].fresh = True
    known = {each.message.segment_id: each for each in each_of if not each.fresh}
    if not known:
        return []
    db.execute(
        "SELECT segment_id, sha256 FROM journal_segment WHERE segment_id = ANY(%s)", [list(known)]
    )
    return [
        _other_content(segment_id)
        for segment_id, sha256 in db.fetchall()
        if sha256 not in (known[segment_id].message.sha256, "")  # '': before digests were kept
    ]


def _other_content(segment_id: UUID) -> SegmentRefused:
    return SegmentRefused(f"segment {segment_id} was taken in with other content")


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


def _insert(db: Any, fresh: dict[UUID, _Taken]) -> None:
    """Their events, and which of them are of keys nobody issued."""
    db.execute(_STAGING)
    # Whoever calls from inside a transaction may have taken in other segments in it.
    db.execute("DELETE FROM usage_staging")
    copied = db.copy(f"COPY usage_staging ({_LIST}) FROM STDIN (FORMAT BINARY)")
    with connection.wrap_database_errors, copied as copy:
        copy.write(rows.copied(each.rows for each in fresh.values()))
    failpoint("ingest.segment.after_copy")
    db.execute(_STRANGERS)
    for segment_id, count in db.fetchall():
        fresh[segment_id].strangers = count
    db.execute(_INSERT)
    for segment_id, count in db.fetchall():
        fresh[segment_id].inserted = count
    db.execute(
        "UPDATE journal_segment s SET inserted = i.inserted"
        "  FROM unnest(%s::uuid[], %s::int[]) AS i (segment_id, inserted)"
        " WHERE s.segment_id = i.segment_id",
        [list(fresh), [each.inserted for each in fresh.values()]],
    )
    failpoint("ingest.segment.after_insert")


def _set_aside(db: Any, segment_id: UUID, items: Iterable[SetAside]) -> None:
    for item in items:
        db.execute(
            "INSERT INTO usage_quarantine (segment_id, reason, payload) VALUES (%s, %s, %s)",
            [segment_id, item.reason, item.payload],
        )
