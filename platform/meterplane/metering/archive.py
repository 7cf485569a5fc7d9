"""Days of usage that are past keeping: from PostgreSQL to a Parquet file, and back.

Guarantees: a day's events leave PostgreSQL only when a file holds all of them, was read back, is
durable, and `usage_archive` says so with its digest; at every instant they are in the one place, in
the other, or in both. Each step is found done or is done again, so that whoever is killed at any of
them is followed by the next run. Sums (`usage_hour`, `usage_day`, ...) stay for ever.

The steps of a day: *closed* (PostgreSQL refuses further events of it, and ingest sets them aside),
*written*, *recorded*, *dropped*. Two that meet do not do one day's work together: the row of the
day in `usage_archive` is locked while its file is written.

What it does not know: whether ARCHIVE_DIR is kept safe. What is in it is the operator's to copy.
A restored day stays closed, is not counted again, and goes again after `RESTORED_DAYS`.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.utils import OperationalError

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.invariant import ensure
from meterplane.metering.archive_file import (
    COLUMNS,
    Content,
    content_of,
    rows_of,
    sha256_of,
    write_file,
)
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

# Below a task's time limit of 600 s with a day's own time to spare; the next run goes on.
RUN_S_MAX = 300.0
RESTORED_DAYS = 7
_READ = ", ".join(f"{name}{cast}" for name, cast in COLUMNS.items())
_LIST = ", ".join(COLUMNS)
# Of each event 60 bits of a digest, added up: the same in whatever order they are read.
_CONTENT = """
SELECT COALESCE(sum(n), 0), COALESCE(jsonb_object_agg(currency, cost::text)
         FILTER (WHERE currency IS NOT NULL), '{}'), COALESCE(sum(digests), 0)
  FROM (SELECT currency, count(*) AS n, sum(cost_nano) AS cost,
               sum(('x' || substr(md5(request_id || ':' || cost_nano), 1, 15))::bit(60)::bigint)
                 AS digests
          FROM usage_event WHERE event_day = %s GROUP BY currency) AS by_currency
"""
_DUE = r"""
SELECT day FROM (
  SELECT to_date(substring(c.relname FROM '^usage_event_(\d{8})$'), 'YYYYMMDD') AS day
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'public.usage_event'::regclass
) AS attached LEFT JOIN usage_archive a USING (day)
 WHERE day < %s AND (a.restored_at IS NULL OR a.restored_at < %s)
 ORDER BY day
"""


@dataclass(frozen=True, slots=True)
class Archived:
    """The file of one day, as it was recorded."""

    path: Path
    sha256: str
    content: Content


def archive_due_days() -> list[date]:
    """Archive every day older than `USAGE_RETENTION_DAYS`, oldest first. Returns those that went.

    Stops after `RUN_S_MAX`. A day that somebody else is at, or whose locks are not free, is left to
    the next run.
    """
    if settings.USAGE_RETENTION_DAYS == 0:
        return []
    now = clock.now()
    before = now.date() - timedelta(days=settings.USAGE_RETENTION_DAYS)
    with system_scope("which days are past keeping"), connection.cursor() as db:
        db.execute(_DUE, [before, now - timedelta(days=RESTORED_DAYS)])
        due = [day for (day,) in db.fetchall()]
    gone, until = [], time.monotonic() + RUN_S_MAX
    for day in due:
        if time.monotonic() > until:
            break
        try:
            if archive_day(day):
                gone.append(day)
        except OperationalError as busy:  # a lock that was not free within two seconds
            log.warning("usage of %s stays until the next run: %s", day, str(busy).strip())
    return gone


def archive_day(day: date) -> bool:
    """Take one day from PostgreSQL into its file. False when somebody else is at it.

    Raises OSError when the file cannot be written, and InvariantBroken when what was read back is
    not what PostgreSQL has: the day stays then.
    """
    with system_scope("a day past keeping is closed"), connection.cursor() as db:
        db.execute("SELECT close_usage_day(%s)", [day])
    failpoint("archive.day.after_close")
    if not _record(day):
        return False
    failpoint("archive.day.after_record")
    with system_scope("a day past keeping is dropped"), connection.cursor() as db:
        archived = recorded(day)
        sound = archived is not None and sha256_of(archived.path) == archived.sha256
        ensure(sound, f"the file of {day} is not what was recorded; the day stays")
        db.execute("SELECT drop_usage_day(%s)", [day])
        failpoint("archive.day.before_drop")
    failpoint("archive.day.after_drop")
    log.info("usage of %s went to a file", day)
    return True


def recorded(day: date) -> Archived | None:
    """The file a day went to, by its record; None if there is none. Needs the system's door."""
    with connection.cursor() as db:
        db.execute(
            "SELECT file_name, sha256, events, cost_nano::text, checksum FROM usage_archive"
            " WHERE day = %s AND recorded_at IS NOT NULL",
            [day],
        )
        row = db.fetchone()
    if row is None:
        return None
    return Archived(settings.ARCHIVE_DIR / row[0], row[1], Content.of(*row[2:]))


def restore_day(day: date) -> int:
    """Bring a day's events back from their file, without counting them again. Returns how many.

    Raises `CallerError` `not_archived`, `already_there` or `archive_damaged`; nothing is changed
    then.
    """
    with system_scope("an operator restores a day"), connection.cursor() as db:
        archived = recorded(day)
        if archived is None:
            raise CallerError("not_archived", f"Usage of {day} is in no file.", field="day")
        db.execute(
            "SELECT dropped_at IS NULL OR restored_at IS NOT NULL FROM usage_archive"
            " WHERE day = %s FOR UPDATE",
            [day],
        )
        if db.fetchone()[0]:
            raise CallerError("already_there", f"Usage of {day} is in PostgreSQL.", field="day")
        if not archived.path.is_file() or sha256_of(archived.path) != archived.sha256:
            raise CallerError(
                "archive_damaged", f"{archived.path} is missing or not what was recorded."
            )
        db.execute("SELECT restore_usage_day(%s)", [day])
        with db.copy(f"COPY usage_event ({_LIST}) FROM STDIN") as copy:
            for row in rows_of(archived.path):
                copy.write_row(row)
        if _content_in_postgres(db, day) != archived.content:
            raise CallerError("archive_damaged", f"{archived.path} does not add up to its record.")
        db.execute("SELECT close_restored_usage_day(%s)", [day])
    return archived.content.events


def _record(day: date) -> bool:
    """Write the file of a closed day and its record, unless that was done. False if busy."""
    with system_scope("a day past keeping goes to a file"), connection.cursor() as db:
        db.execute(
            "SELECT recorded_at IS NOT NULL FROM usage_archive WHERE day = %s"
            " FOR UPDATE SKIP LOCKED",
            [day],
        )
        row = db.fetchone()
        if row is None:
            return False
        if row[0]:
            return True
        path = settings.ARCHIVE_DIR / f"usage_event_{day:%Y%m%d}.parquet"
        write_file(path, _batches(day))
        failpoint("archive.day.after_file")
        content = content_of(path)
        whole = content == _content_in_postgres(db, day)
        ensure(whole, f"{path} is not what PostgreSQL has of {day}; the day stays")
        db.execute(
            "UPDATE usage_archive SET file_name = %s, sha256 = %s, events = %s,"
            " cost_nano = %s::jsonb, checksum = %s, recorded_at = now() WHERE day = %s",
            [path.name, sha256_of(path), content.events, content.costs, content.checksum, day],
        )
    return True


def _content_in_postgres(db: Any, day: date) -> Content:
    db.execute(_CONTENT, [day])
    events, costs, checksum = db.fetchone()
    return Content.of(events, costs, checksum)


def _batches(day: date) -> Iterator[list[tuple[Any, ...]]]:
    """A day's events in the order of their key, few of them in memory at a time."""
    with closing(connection.chunked_cursor()) as cursor:
        cursor.execute(
            f"SELECT {_READ} FROM usage_event WHERE event_day = %s"  # noqa: S608  constants
            " ORDER BY tenant_id, request_id",
            [day],
        )
        while batch := cursor.fetchmany(20_000):
            yield batch
