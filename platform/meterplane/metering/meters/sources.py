"""SQL of what a version of a meter counts in one interval: from roll-ups where they tell, else
from events.

Both give equal results, as a test with random events holds. A sum or a count over columns that
roll-ups have is read from whole UTC days where buckets allow it, whole hours beside those, and
events at the edges: each instant from one of them. Everything else is read from events.

Every statement gives rows of (bucket, one text per dimension, value, events used, events without a
usable value), and puts the open door's condition on every row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from meterplane.catalog.meters import DATA, REQUEST, TAG, Filter, MeterDefinition
from meterplane.metering.buckets import Unit, bucket_of, hours_line_up
from meterplane.metering.external.exact_json import canonical
from meterplane.metering.reading import events_in, of_door

_COLUMNS = {"project": "project_id::text", "key": "key_id::text"}
ROLLED_UP_BY = frozenset({
    "project", "key", "model", "surface", "status", "service_tier", "priority", "deployment",
    "region", "gpu_type", "currency",
})  # fmt: skip
ROLLED_UP = {
    "requests": "requests", "tokens_in": "tokens_in", "tokens_out": "tokens_out", "rows": "rows",
    "bytes_in": "bytes_in", "bytes_out": "bytes_out", "tensor_bytes_in": "tensor_bytes_in",
    "tensor_bytes_out": "tensor_bytes_out", "total_ms": "total_ms_sum",
    "compute_us": "compute_us_sum", "first_byte_ms": "first_byte_ms_sum",
}  # fmt: skip
_AGGREGATES = {
    "sum": "sum(value)",
    "count": "sum(value)",  # of ones, or of a roll-up's events
    "max": "max(value)",
    "last": "(array_agg(value ORDER BY at DESC, id DESC) FILTER (WHERE value IS NOT NULL))[1]",
    "unique": "count(DISTINCT value)",
}
# A number, or a text that writes one: a sender whose language knows floats alone sends those.
_NUMBER = r"""CASE jsonb_typeof(f.x)
    WHEN 'number' THEN (f.x #>> '{}')::numeric
    WHEN 'string' THEN CASE WHEN f.x #>> '{}' ~ '^-?[0-9]{1,38}([.][0-9]{1,18})?$'
                            THEN (f.x #>> '{}')::numeric END END"""
_ANY_SCALAR = "CASE WHEN jsonb_typeof(f.x) IN ('string', 'number', 'boolean') THEN f.x END"
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """A half-open interval in UTC, in buckets of a zone (None: in one), by dimensions."""

    start: datetime
    end: datetime
    unit: Unit | None
    zone: ZoneInfo
    dimensions: Sequence[str]


def is_rolled_up(it: MeterDefinition, dimensions: Sequence[str]) -> bool:
    """Whether roll-ups tell it, but for the edges of hours."""
    told_by = {*dimensions, *(each.field for each in it.filters)}
    return (
        it.event_type == REQUEST
        and told_by <= ROLLED_UP_BY
        and (it.aggregation == "count" or (it.aggregation == "sum" and it.field in ROLLED_UP))
    )


def statement_of(
    it: MeterDefinition, asked: Asked, *, rows_max: int, rolled_up: bool = True
) -> tuple[str, dict[str, Any]]:
    """The statement and its parameters. `rolled_up` False: from events alone."""
    parameters: dict[str, Any] = {"zone": asked.zone.key, "rows_max": rows_max}
    if it.event_type != REQUEST:
        source = _external(it, asked, parameters)
    else:
        in_sums = rolled_up and is_rolled_up(it, asked.dimensions)
        parts = _parts(asked) if in_sums else [("event", asked.start, asked.end)]
        source = " UNION ALL ".join(
            _requests(it, asked, table, start, end, f"part{number}", parameters)
            for number, (table, start, end) in enumerate(parts)
        )
    grouped = ", ".join(["bucket", *(f"d{n}" for n in range(len(asked.dimensions)))])
    statement = (
        f"SELECT {grouped}, {_AGGREGATES[it.aggregation]}, count(value),"  # noqa: S608  constants
        f" count(*) - count(value) FROM ({source}) AS used GROUP BY {grouped}"
        f" ORDER BY {grouped} LIMIT %(rows_max)s"
    )
    return statement, parameters


def _parts(asked: Asked) -> Iterator[tuple[str, datetime, datetime]]:
    """Which table tells which interval; together they are the interval, without an overlap."""
    start, end = asked.start.astimezone(UTC), asked.end.astimezone(UTC)
    steps = []
    if asked.unit is None or (asked.unit in ("day", "month") and asked.zone.key == "UTC"):
        steps.append(("day", _DAY))
    if asked.unit is None or (asked.unit != "minute" and hours_line_up(asked.zone, start, end)):
        steps.append(("hour", _HOUR))
    yield from _split(start, end, steps)


def _split(
    start: datetime, end: datetime, steps: list[tuple[str, timedelta]]
) -> Iterator[tuple[str, datetime, datetime]]:
    if start >= end:
        return
    if not steps:
        yield "event", start, end
        return
    (table, step), *finer = steps
    first, last = _ceil(start, step), _floor(end, step)
    if first >= last:
        yield from _split(start, end, finer)
        return
    yield from _split(start, first, finer)
    yield table, first, last
    yield from _split(last, end, finer)


def _requests(
    it: MeterDefinition,
    asked: Asked,
    table: str,
    start: datetime,
    end: datetime,
    part: str,
    parameters: dict[str, Any],
) -> str:
    door, of_tenant = of_door()
    parameters |= of_tenant
    at = {
        "event": "event_at",
        "hour": "hour",
        "day": "(day::timestamp AT TIME ZONE 'UTC')",
    }[table]
    if table == "event":
        interval, bounds = events_in(start, end, part)
        value = {"count": "1", "unique": _column(it.field, "unique", parameters)}.get(
            it.aggregation, it.field
        )
        order = ", event_at AS at, request_id AS id"
    else:
        column = "hour" if table == "hour" else "day"
        cast = "timestamptz" if table == "hour" else "date"
        interval = f"{column} >= %({part}_start)s::{cast} AND {column} < %({part}_end)s::{cast}"
        ends = (start, end) if table == "hour" else (start.date(), end.date())
        bounds = {f"{part}_start": ends[0], f"{part}_end": ends[1]}
        value = "events" if it.aggregation == "count" else ROLLED_UP[it.field]
        order = ""
    parameters |= bounds
    conditions = [door, interval]
    for number, each in enumerate(it.filters):
        column = _column(each.field, f"filter{number}", parameters)
        parameters[f"value{number}"] = each.value
        conditions.append(_compared(each, column, f"%(value{number})s"))
    if it.aggregation != "last":
        order = ""
    return (
        f"SELECT {_bucket(asked, at)} AS bucket{_dimensions(asked, _column, parameters)},"  # noqa: S608  constants
        f" {value} AS value{order} FROM usage_{table} WHERE {' AND '.join(conditions)}"
    )


def _external(it: MeterDefinition, asked: Asked, parameters: dict[str, Any]) -> str:
    door, of_tenant = of_door()
    parameters |= of_tenant | {"type": it.event_type, "start": asked.start, "end": asked.end}
    if it.aggregation == "count":
        value, field = "1", ""
    else:
        value = _ANY_SCALAR if it.aggregation == "unique" else _NUMBER
        found = _json(it.field, "field", parameters)
        field = f" CROSS JOIN LATERAL (SELECT {found} AS x) f"
    conditions = [door, "type = %(type)s AND event_at >= %(start)s AND event_at < %(end)s"]
    for number, each in enumerate(it.filters):
        found = _json(each.field, f"filter{number}", parameters)
        listed = each.value if isinstance(each.value, list) else [each.value]
        values = [canonical(value) for value in listed]
        parameters[f"value{number}"] = values if each.op == "in" else values[0]
        cast = "jsonb[]" if each.op == "in" else "jsonb"
        conditions.append(_compared(each, found, f"%(value{number})s::{cast}"))
    return (
        f"SELECT {_bucket(asked, 'event_at')} AS bucket"  # noqa: S608  constants
        f"{_dimensions(asked, _text, parameters)}, {value} AS value, event_at AS at, id"
        f" FROM effective_event{field} WHERE {' AND '.join(conditions)}"
    )


def _bucket(asked: Asked, at: str) -> str:
    return bucket_of(asked.unit, at) if asked.unit else "NULL::timestamptz"


def _dimensions(asked: Asked, column_of: Any, parameters: dict[str, Any]) -> str:
    return "".join(
        f", {column_of(name, f'dimension{number}', parameters)} AS d{number}"
        for number, name in enumerate(asked.dimensions)
    )


def _column(name: str, parameter: str, parameters: dict[str, Any]) -> str:
    """A request's column; a tag's name is a parameter. Names are those that were checked."""
    if name.startswith(TAG):
        parameters[parameter] = name.removeprefix(TAG)
        return f"(tags ->> %({parameter})s)"
    return _COLUMNS.get(name, name)


def _text(name: str, parameter: str, parameters: dict[str, Any]) -> str:
    return f"({_json(name, parameter, parameters)} #>> '{{}}')"


def _json(name: str, parameter: str, parameters: dict[str, Any]) -> str:
    if name.startswith(DATA):
        parameters[parameter] = name.removeprefix(DATA).split(".")
        return f"(data #> %({parameter})s::text[])"
    return f"to_jsonb({_COLUMNS.get(name, name)})"


def _compared(each: Filter, column: str, value: str) -> str:
    match each.op:
        case "eq":
            return f"{column} = {value}"
        case "neq":
            return f"{column} IS DISTINCT FROM {value}"
        case "in":
            return f"{column} = ANY({value})"


def _floor(instant: datetime, step: timedelta) -> datetime:
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (instant - midnight) // step * step


def _ceil(instant: datetime, step: timedelta) -> datetime:
    floor = _floor(instant, step)
    return floor if floor == instant else floor + step
