"""SQL of the usage between two instants, each part of it from the coarsest sums that tell it.

Exact for any two. All parts are of one statement: a segment that is ingested meanwhile is in all of
them or in none.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from meterplane.kernel import clock
from meterplane.metering.reading import events_in, of_door

Table = Literal["usage_month", "usage_day", "usage_hour", "usage_event"]

COUNTS = ("requests", "tokens_in", "tokens_out", "events", "cost_nano")

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_MIDNIGHT = datetime(2000, 1, 1, tzinfo=UTC)
_COLUMNS = {
    "usage_month": "month",
    "usage_day": "day",
    "usage_hour": "hour",
    "usage_tag_hour": "hour",
}


class Part(NamedTuple):
    """Where the sums of [first, last) come from, and whether they are taken away."""

    table: Table
    first: datetime
    last: datetime
    sign: Literal["", "-"] = ""


def summed(parts: Sequence[Part], by: str) -> tuple[str, dict[str, Any]]:
    """SQL of the parts' `COUNTS`, told apart by the columns `by`, and its parameters."""
    door, parameters = of_door()
    statements = []
    for number, (table, first, last, sign) in enumerate(parts):
        name = f"part{number}"
        counts = [f"{sign}{each} AS {each}" for each in COUNTS]
        if table == "usage_event":
            counts[COUNTS.index("events")] = f"{sign}1 AS events"
        inside, bounds = interval(table, first, last, name)
        parameters |= bounds
        statements.append(
            f"SELECT {by}, {', '.join(counts)} FROM {table} WHERE {door} AND {inside}"  # noqa: S608
        )
    return " UNION ALL ".join(statements), parameters


def from_months(start: datetime, end: datetime) -> list[Part]:
    """As `from_days`, with whole months from their sums, and the running one less what is left of
    it. Months tell apart what bills do, not keys and projects.

    What is left is taken away where it is a day's usage at the most, and hardly ever any: of a
    clock that is ahead, or since an end that was earlier today.
    """
    start, end = _utc(start, end)
    first_month, last_month = _ceil_month(start), _floor_month(end)
    rest = from_days(last_month, end)
    if first_month <= last_month < end and end > clock.now() - _DAY:
        last_month = _ceil_month(end)
        rest = [part._replace(sign="-") for part in from_days(end, last_month)]
    if first_month >= last_month:
        return from_days(start, end)
    whole = Part("usage_month", first_month, last_month)
    parts = [*from_days(start, first_month), whole, *rest]
    return [part for part in parts if part.first < part.last]


def from_days(start: datetime, end: datetime) -> list[Part]:
    """Whole days, hours beside them and events at the edges; one part of nothing where the span is
    empty."""
    start, end = _utc(start, end)
    first_hour, last_hour = ceil(start, _HOUR), floor(end, _HOUR)
    if first_hour >= last_hour:
        return [Part("usage_event", start, end)]
    first_day, last_day = ceil(first_hour, _DAY), floor(last_hour, _DAY)
    if first_day >= last_day:
        first_day = last_day = last_hour
    parts = (
        Part("usage_event", start, first_hour),
        Part("usage_hour", first_hour, first_day),
        Part("usage_day", first_day, last_day),
        Part("usage_hour", last_day, last_hour),
        Part("usage_event", last_hour, end),
    )
    return [part for part in parts if part.first < part.last]


def interval(table: str, first: datetime, last: datetime, name: str) -> tuple[str, dict[str, Any]]:
    """The condition for a row of a table to be in [first, last), and its parameters by `name`.

    Of days and months the bounds are whole ones.
    """
    if table == "usage_event":
        return events_in(first, last, name)
    column = _COLUMNS[table]
    bounds: tuple[date, date] = (first, last)
    if column in ("day", "month"):
        bounds = first.date(), last.date()
    return (
        f"{column} >= %({name}_first)s AND {column} < %({name}_last)s",
        {f"{name}_first": bounds[0], f"{name}_last": bounds[1]},
    )


def floor(instant: datetime, unit: timedelta) -> datetime:
    """The last whole UTC hour or day that has begun."""
    return instant - (instant - _MIDNIGHT) % unit


def ceil(instant: datetime, unit: timedelta) -> datetime:
    """The first whole UTC hour or day from then on."""
    return instant + (_MIDNIGHT - instant) % unit


def _utc(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("a naive datetime has no instant; attach UTC first")
    return start.astimezone(UTC), end.astimezone(UTC)


def _floor_month(instant: datetime) -> datetime:
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _ceil_month(instant: datetime) -> datetime:
    month = _floor_month(instant)
    return month if month == instant else _floor_month(month + 32 * _DAY)
