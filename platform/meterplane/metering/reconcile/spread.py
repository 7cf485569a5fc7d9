"""Manifests by hour: each newly taken-in segment says which hours are to be looked at again.

A manifest is moved, not copied: out of `journal_segment`, into `journal_manifest`, where an hour
finds its ids whatever segments they came in; there it stays `KEPT`. In the same transaction its
hours become due: a segment that comes late opens its hour again.

Guarantees: each manifest is moved once, by any number of workers. Of one that cannot be read, what
could be read is moved, and the rest logged: its events have no witness. At most `SEGMENTS_MAX` at
once.
"""

import logging
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.ids import minted_at_ms
from meterplane.metering.manifest import ManifestBroken, read_manifest
from meterplane.metering.parse import FIRST_INSTANT_MS, LAST_INSTANT_MS
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

SEGMENTS_MAX = 200  # 1 MB each at most: some 500,000 ids of 16 bytes
KEPT = timedelta(days=35)
# After its end: the last segment is sealed within a second and taken in within some; the look at
# Triton's counters that follows the hour is a minute away at most.
SETTLED_AFTER = timedelta(minutes=3)
HOUR = timedelta(hours=1)
AHEAD_MAX = timedelta(days=2)  # no event is from so far ahead (`parse.DAYS_AHEAD_MAX`)

_NEXT = """
SELECT segment_id, manifest FROM journal_segment
 WHERE manifest IS NOT NULL
 ORDER BY ingested_at, segment_id
 LIMIT %s
   FOR UPDATE SKIP LOCKED
"""
_STORE = """
INSERT INTO journal_manifest (segment_id, hour, model, server, ids) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_DUE = """
INSERT INTO reconciliation_hour (hour, due_at) VALUES (%s, %s)
ON CONFLICT (hour) DO UPDATE SET due_at = excluded.due_at
"""


def spread() -> int:
    """Move the manifests of segments taken in since. How many, `SEGMENTS_MAX` at most."""
    with system_scope("manifests are sorted by hour"), connection.cursor() as cursor:
        cursor.execute(_NEXT, [SEGMENTS_MAX])
        segments = cursor.fetchall()
        oldest = clock.now() - KEPT  # of what came later than that nothing is told
        rows: list[tuple[UUID, datetime, str, str, list[UUID]]] = []
        for segment_id, manifest in segments:
            ids = _by_hour(segment_id, bytes(manifest))
            rows += [
                (segment_id, *where, found) for where, found in ids.items() if where[0] > oldest
            ]
        hours = {row[1] for row in rows}
        cursor.executemany(_STORE, rows)
        cursor.execute(
            "UPDATE journal_segment SET manifest = NULL WHERE segment_id = ANY(%s)",
            [[segment_id for segment_id, _ in segments]],
        )
        make_due(cursor, hours)
    return len(segments)


def make_due(cursor: Any, hours: set[datetime]) -> None:
    """Have these hours looked at (again) once they are over. In order: two workers may meet."""
    now = clock.now()
    cursor.executemany(
        _DUE, [(hour, max(hour + HOUR + SETTLED_AFTER, now)) for hour in sorted(hours)]
    )


def forget_old_manifests() -> None:
    """What is older is not looked at again."""
    with system_scope("old manifests are dropped"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM journal_manifest WHERE hour < %s", [clock.now() - KEPT])


def hour_of(instant: datetime) -> datetime:
    """The whole UTC hour an instant is in."""
    return instant.replace(minute=0, second=0, microsecond=0)


def _by_hour(segment_id: UUID, manifest: bytes) -> dict[tuple[datetime, str, str], list[UUID]]:
    """Ids by hour, model and server. One without a time of its own is in its segment's hour."""
    its_own = hour_of(clock.from_ms(minted_at_ms(segment_id)))
    found: dict[tuple[datetime, str, str], list[UUID]] = defaultdict(list)
    try:
        for model, server, ids in read_manifest(manifest):
            for each in ids:
                found[_minted_in(each) or its_own, _stored(model), _stored(server)].append(each)
    except ManifestBroken as problem:
        log.error("the manifest of segment %s cannot be read: %s", segment_id, problem)
    return found


def _minted_in(request_id: UUID) -> datetime | None:
    """Its hour; None where no event can be from then (`parse.problem_of`)."""
    if request_id.version != 7:
        return None
    if not FIRST_INSTANT_MS <= minted_at_ms(request_id) <= LAST_INSTANT_MS:
        return None
    minted = clock.from_ms(minted_at_ms(request_id))
    if minted > clock.now() + AHEAD_MAX:
        return None
    return hour_of(minted)


def _stored(name: str) -> str:
    return name.replace("\0", "\N{REPLACEMENT CHARACTER}")
