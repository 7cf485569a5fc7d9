"""Buckets of time as usage is asked by: their names, and how SQL finds an instant's.

A bucket is told by its first instant. Days and months begin at midnight of the zone they are shown
in, so a day may have 23 or 25 hours. Sums by whole UTC hours can serve a zone while its offset from
UTC is whole hours.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from meterplane.kernel.errors import CallerError

Unit = Literal["minute", "hour", "day", "month"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_HOUR = timedelta(hours=1)


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return frozenset(available_timezones())


def zone_named(name: str, *, field: str = "tz") -> ZoneInfo:
    """A zone of the IANA database, e.g. `Europe/Berlin`. Raises `CallerError`."""
    if name not in _known():
        raise CallerError(
            "unknown_time_zone",
            f"{name[:64]!r} is no time zone; use a name like Europe/Berlin or UTC.",
            field=field,
        )
    return ZoneInfo(name)


def bucket_of(unit: Unit, column: str) -> str:
    """SQL of the first instant of the bucket that `column`, a timestamptz, falls into.

    Names the parameter `zone`: the caller gives `{"zone": zone.key}`.
    """
    return f"date_trunc('{unit}', {column}, %(zone)s)"


def hours_line_up(zone: ZoneInfo, start: datetime, end: datetime) -> bool:
    """True if every hour and midnight of the zone in [start, end) is one of UTC."""
    at = start.astimezone(UTC)
    while True:
        offset = at.astimezone(zone).utcoffset()
        if offset is None or offset % _HOUR:
            return False
        if at >= end:  # the last instant counts: clocks are set between two days, too
            return True
        at = min(at + timedelta(days=1), end)
