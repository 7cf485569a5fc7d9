"""Which hours are due, and the verdict on each.

An hour is looked at once it has been over for `SETTLED_AFTER`, and again whenever a segment comes
that holds requests of it. While a journal may still hold some, it is open and stays due.

Guarantees: running twice, or by any number of workers, gives what running once does: whoever works
at an hour holds its row, and replaces all its verdicts at once. One run takes `HOURS_MAX` hours at
most, oldest first: what was missed while nobody ran is caught up in the next ones.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from meterplane.kernel import clock
from meterplane.metering.reading import read
from meterplane.metering.reconcile.compare import compare
from meterplane.metering.reconcile.spread import (
    HOUR,
    KEPT,
    SEGMENTS_MAX,
    SETTLED_AFTER,
    hour_of,
    spread,
)
from meterplane.metering.reconcile.verdict import Finding
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

HOURS_MAX = 24  # some tenths of a second each
SPREADS_MAX = 10  # of SEGMENTS_MAX each: 2,000 segments a minute are 30 MB/s of journal
AGAIN_AFTER = timedelta(minutes=1)

_NEXT = """
SELECT hour FROM reconciliation_hour
 WHERE due_at <= %s
 ORDER BY hour
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""
_OPEN = """
INSERT INTO reconciliation_hour (hour, due_at)
SELECT hour, %(now)s
  FROM generate_series(
    (SELECT GREATEST(%(oldest)s, LEAST(%(last)s, min(hour))) FROM reconciliation_hour),
    %(last)s, interval '1 hour') hour
 ORDER BY hour
ON CONFLICT DO NOTHING
"""
_STORE = """
INSERT INTO reconciliation (hour, model, server, journal, events, rolled_up, triton_low,
       triton_high, triton, missing, missing_count, extra, extra_count, verdict, reason, at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::uuid[], %s, %s::uuid[], %s, %s, %s, %s)
"""


def reconcile() -> int:
    """Sort what was taken in, open hours that ended, look at those that are due. How many."""
    for _ in range(SPREADS_MAX):
        if spread() < SEGMENTS_MAX:
            break
    open_ended_hours()
    for done in range(HOURS_MAX):
        if not _reconcile_next():
            return done
    return HOURS_MAX


def open_ended_hours() -> None:
    """Make every hour due that ended since the first one that is known, with usage or without."""
    last = hour_of(clock.now() - SETTLED_AFTER) - HOUR
    with system_scope("hours that ended are reconciled"), connection.cursor() as cursor:
        cursor.execute(_OPEN, {"last": last, "oldest": oldest_hour(), "now": clock.now()})


def oldest_hour() -> datetime:
    """The first one whose manifests are kept long enough to be looked at."""
    return hour_of(clock.now() - KEPT) + HOUR


def reconcile_hour(hour: datetime) -> list[Finding]:
    """Look at one hour now, due or not, and store what was found."""
    with system_scope("an hour is reconciled"), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO reconciliation_hour (hour) VALUES (%s) ON CONFLICT DO NOTHING", [hour]
        )
        cursor.execute("SELECT FROM reconciliation_hour WHERE hour = %s FOR UPDATE", [hour])
        return _settle(cursor, hour)


def _reconcile_next() -> bool:
    with system_scope("hours that are due are reconciled"), connection.cursor() as cursor:
        cursor.execute(_NEXT, [clock.now()])
        row = cursor.fetchone()
        if row is None:
            return False
        _settle(cursor, row[0])
        return True


def _settle(cursor: Any, hour: datetime) -> list[Finding]:
    """The verdicts on an hour whose row is held."""
    now = clock.now()
    if hour < oldest_hour():  # what was found while its manifests were here stands
        _checked(cursor, hour, None)
        return []
    waiting = waiting_for(hour)
    findings = compare(hour, settings.TRITON_METRICS, waiting)
    cursor.execute("DELETE FROM reconciliation WHERE hour = %s", [hour])
    cursor.executemany(_STORE, [_row(hour, finding, now) for finding in findings])
    _checked(cursor, hour, now + AGAIN_AFTER if waiting else None)
    for finding in findings:
        if finding.verdict == "fail":
            log.error(
                "metering does not add up in the hour of %s UTC, %s on %s: %s",
                f"{hour:%Y-%m-%d %H:%M}", finding.model, finding.server or "no server",
                finding.reason,
            )  # fmt: skip
    return findings


def _checked(cursor: Any, hour: datetime, due_at: datetime | None) -> None:
    cursor.execute(
        "UPDATE reconciliation_hour SET due_at = %s, reconciled_at = %s WHERE hour = %s",
        [due_at, clock.now(), hour],
    )


def waiting_for(hour: datetime) -> str:
    """Whose journals may still hold requests of the hour, in a sentence; empty: nobody's.

    Needs the system's door. Later ones than these were admitted under an id of before (a batch's
    line): their segment opens the hour again.
    """
    ended_at = hour + HOUR
    if ended_at > clock.now():
        return "the hour is not over"
    behind = read(
        "SELECT host, root FROM journal_watermark WHERE drained_until < %(until)s"
        " ORDER BY drained_until LIMIT 3",
        {"until": ended_at},
    )
    if not behind:
        return ""
    named = ", ".join(f"{root} on {host}" for host, root in behind)
    return f"not everything is taken in yet of journal root {named}"


def _row(hour: datetime, finding: Finding, at: datetime) -> Sequence[object]:
    ids, served = finding.ids, finding.served
    known = None if served is None or served.problem else served
    return (
        hour, finding.model, finding.server, ids.journal, ids.events, finding.rolled_up,
        known.bounds.low if known else None, known.bounds.high if known else None,
        known.successes if known else None, ids.missing, ids.missing_count, ids.extra,
        ids.extra_count, finding.verdict, finding.reason, at,
    )  # fmt: skip
