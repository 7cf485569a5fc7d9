"""The daily partitions of `usage_event`: made ahead by a schedule, and on demand for a late day.

In a transaction of their own, before ingest: attaching a partition locks more than an insert does.
"""

from collections.abc import Iterable
from datetime import date, timedelta

from django.db import connection

from meterplane.kernel import clock
from tenants.scoping import system_scope

DAYS_AHEAD = 7


def ensure_partitions(days: Iterable[date]) -> None:
    """Make sure that each day has its partition. Idempotent, safe to race.

    Asked every time: one that was made in a transaction that was rolled back is not there.
    """
    names = {day: f"usage_event_{day:%Y%m%d}" for day in days}
    if not names:
        return
    with system_scope("usage of a new day"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relname = ANY(%s)"
            " AND relnamespace = 'public'::regnamespace",
            [list(names.values())],
        )
        there = {name for (name,) in cursor.fetchall()}
    for day in sorted(day for day, name in names.items() if name not in there):
        # One transaction each: the locks of two days held together could deadlock.
        with system_scope("usage of a new day"), connection.cursor() as cursor:
            cursor.execute("SELECT ensure_usage_partition(%s)", [day])


def ensure_days_ahead() -> None:
    """Partitions for today and the coming week."""
    today = clock.now().date()
    ensure_partitions(today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))
