"""The daily partitions of `usage_event`: made ahead by a schedule, and on demand for a late day.

In a transaction of their own, before ingest: attaching a partition locks more than an insert does.
"""

from collections.abc import Iterable
from datetime import date, timedelta

from django.db import connection

from meterplane.kernel import clock
from tenants.scoping import system_scope

DAYS_AHEAD = 7
_known: set[date] = set()  # partitions are never taken away while this process lives on them


def ensure_partitions(days: Iterable[date]) -> None:
    """Make sure that each day has its partition. Idempotent, safe to race."""
    missing = sorted(set(days) - _known)
    for day in missing:
        with system_scope("usage of a new day"), connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"usage_event_{day:%Y%m%d}"])
            if not cursor.fetchone()[0]:
                cursor.execute("SELECT ensure_usage_partition(%s)", [day])
        _known.add(day)


def ensure_days_ahead() -> None:
    """Partitions for today and the coming week."""
    today = clock.now().date()
    ensure_partitions(today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))
