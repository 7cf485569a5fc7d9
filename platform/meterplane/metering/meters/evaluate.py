"""The value of a meter over a period, in buckets and by dimensions, exact.

Each version counts its own part of the period, and every row says which one it is of: two versions
may have two units, so nothing adds them up. Conversion and rounding are applied to each row, once;
rows of rounded values therefore do not add up to the rounded value of the whole, which is asked for
by naming neither bucket nor dimension, and is what would be rated.

Rows without events are left out: nothing was used, and `max` or `last` of nothing is not 0. Events
that have no usable value in the meter's field are left out of it, and counted as `skipped`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.db import OperationalError
from psycopg.errors import QueryCanceled

from meterplane.catalog.meters import REQUEST, Version
from meterplane.kernel.errors import CallerError
from meterplane.metering.buckets import Unit
from meterplane.metering.meters.convert import converted
from meterplane.metering.meters.sources import Asked, is_rolled_up, statement_of
from meterplane.metering.queries import LIST_DAYS_MAX
from meterplane.metering.reading import read
from meterplane.metering.usage_query import BUCKET_DAYS_MAX

ROWS_MAX = 20_000
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class MeterRow:
    """One value, as decimal text. `bucket` is its first instant, `group` what each dimension is."""

    version: int
    bucket: datetime | None
    group: dict[str, str | None]
    value: str


@dataclass(frozen=True, slots=True)
class VersionUsed:
    """Which version counted which part of the period, in which unit."""

    version: Version
    starts_at: datetime
    ends_at: datetime
    skipped: int


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """The versions that took part, and their rows by time and dimensions."""

    versions: list[VersionUsed]
    rows: list[MeterRow]


def usage_of(
    versions: Sequence[Version],
    start: datetime,
    end: datetime,
    *,
    unit: Unit | None = None,
    zone: ZoneInfo = _UTC,
    dimensions: Sequence[str] = (),
    rolled_up: bool = True,
) -> MeterUsage:
    """Count a meter, given all its versions, in [start, end). Needs an open door.

    Raises `CallerError` naming the field that asks for too much, or for what a version has not.
    `rolled_up` False reads events alone.
    """
    if start >= end:
        raise CallerError("period_empty", "from must be before to.", field="from")
    days_max = BUCKET_DAYS_MAX[unit or "month"]
    if end - start > timedelta(days=days_max):
        what = f"in buckets of a {unit} " if unit else ""
        raise CallerError(
            "period_too_long", f"A meter is counted {what}over at most {days_max} days.", field="to"
        )
    used: list[VersionUsed] = []
    rows: list[MeterRow] = []
    for version in versions:
        begins = max(start, version.effective_from)
        ends = min(end, version.effective_until or end)
        if begins >= ends:
            continue
        _check(version, begins, ends, dimensions)
        asked = Asked(begins.astimezone(UTC), ends.astimezone(UTC), unit, zone, dimensions)
        counted, skipped = _rows(version, asked, ROWS_MAX - len(rows), rolled_up)
        rows += counted
        used.append(VersionUsed(version, begins, ends, skipped))
    return MeterUsage(used, rows)


def _check(version: Version, begins: datetime, ends: datetime, dimensions: Sequence[str]) -> None:
    it = version.definition
    for name in dimensions:
        if name not in it.dimensions:
            known = ", ".join(it.dimensions) or "none"
            raise CallerError(
                "dimension_unknown",
                f"Version {version.number} of {version.slug} is not grouped by {name[:80]!r}; its"
                f" dimensions are {known}.",
                field="group_by",
            )
    if len(set(dimensions)) < len(dimensions):
        raise CallerError("dimension_twice", "Name each dimension once.", field="group_by")
    from_events = it.event_type == REQUEST and not is_rolled_up(it, dimensions)
    if from_events and ends - begins > timedelta(days=LIST_DAYS_MAX):
        raise CallerError(
            "period_too_long",
            f"This is counted from single requests, over at most {LIST_DAYS_MAX} days.",
            field="to",
        )


def _rows(
    version: Version, asked: Asked, rows_max: int, rolled_up: bool
) -> tuple[list[MeterRow], int]:
    it = version.definition
    statement, parameters = statement_of(it, asked, rows_max=rows_max + 1, rolled_up=rolled_up)
    try:
        found = read(statement, parameters)
    except OperationalError as failure:
        if not isinstance(failure.__cause__, QueryCanceled):
            raise
        raise CallerError(
            "usage_too_large", "Counting this takes too long; ask for less time.", field="to"
        ) from None
    if len(found) > rows_max:
        raise CallerError(
            "too_many_rows",
            f"This has more than {ROWS_MAX:,} rows; ask for less time, larger buckets or fewer"
            " dimensions.",
            field="group_by",
        )
    rows = [
        MeterRow(
            version.number,
            bucket,
            dict(zip(asked.dimensions, group, strict=True)),
            converted(value, it.conversion, it.rounding),
        )
        for bucket, *group, value, usable, _ in found
        if usable
    ]
    return rows, sum(int(row[-1]) for row in found)
