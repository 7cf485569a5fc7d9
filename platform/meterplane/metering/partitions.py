"""The daily partitions of `usage_event`: made ahead by a schedule, and on demand for a late day.

In a transaction of their own, before ingest: attaching a partition locks more than an insert does.
A day that was closed to be archived never gets one again: what is in its file would be counted
twice. PostgreSQL refuses it by itself.
"""

from collections.abc import Iterable
from datetime import date, timedelta

from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.failpoints import failpoint
from tenants.scoping import system_scope

DAYS_AHEAD = 7


def ensure_partitions(days: Iterable[date]) -> set[date]:
    """Make sure that each day has its partition; those that are closed for ever are returned.

    Idempotent, safe to race. Asked every time: one that was made in a transaction that was rolled
    back is not there.
    """
    names = {day: f"usage_event_{day:%Y%m%d}" for day in days}
    if not names:
        return set()
    with system_scope("usage of a new day"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, NULL::date FROM pg_class WHERE relname = ANY(%s)"
            " AND relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT NULL, day FROM usage_archive WHERE day = ANY(%s)",
            [list(names.values()), list(names)],
        )
        found = cursor.fetchall()
    there = {name for name, _ in found}
    closed = {day for _, day in found if day is not None}
    for day in sorted(names.keys() - closed):
        if names[day] in there:
            continue
        # One transaction each: the locks of two days held together could deadlock.
        with system_scope("usage of a new day"), connection.cursor() as cursor:
            cursor.execute("SELECT ensure_usage_partition(%s)", [day])
        failpoint("partitions.day.after_create")
    return closed


def ensure_days_ahead() -> None:
    """Partitions for today and the coming week."""
    today = clock.now().date()
    ensure_partitions(today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))
