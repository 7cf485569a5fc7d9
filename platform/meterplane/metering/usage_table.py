"""The answer to a `UsageQuery`: one statement, from the coarsest sums that hold it.

Needs an open door and answers for it: inside `tenant_scope` the organisation's usage, inside
`system_scope` everybody's. Whole UTC days come from `usage_day`, whole hours from `usage_hour`, the
edges of the period from `usage_event`; all in one statement, so a segment that is ingested
meanwhile is in all parts or in none. Whichever tables served it, the answer is the same: it is that
of the events.

What sums cannot serve is read from the events of at most `EVENTS_DAYS_MAX` days: minutes, a zone
whose hours do not begin with those of UTC, two tags at once, a tag by what `usage_tag_hour` does
not keep. One tag is served by `usage_tag_hour`, which holds tagged events only: those without the
tag are all events less the tagged ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import MINOR_DIGITS, divide_half_away
from meterplane.metering.buckets import bucket_of, hours_line_up
from meterplane.metering.reading import events_kept, kept_in_words, of_door, read
from meterplane.metering.spans import ceil, floor, interval
from meterplane.metering.usage_query import (
    DIMENSIONS,
    IDS,
    TAG,
    Filters,
    Order,
    UsageQuery,
    check_filters,
)

EVENTS_DAYS_MAX = 31

Source = Literal["usage_day", "usage_hour", "usage_tag_hour", "usage_event"]
# `nano` is an integer of nano-units; who writes it out makes a decimal text of it.
Kind = Literal["instant", "text", "integer", "nano"]
Cell = datetime | str | int

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_SUMS = ("events", "events_ok", "requests", "tokens_in", "tokens_out", "cost_nano", "total_ms_sum")
_NO_TAG = "''"  # SQL of the tag's value where a table keeps events whatever their tags
_IN_TAG_HOURS = frozenset({"organisation", "project", "key", "model", "status"})
_INSTANTS: dict[Source, str] = {
    "usage_day": "(day::timestamp AT TIME ZONE 'UTC')",
    "usage_hour": "hour",
    "usage_tag_hour": "hour",
    "usage_event": "event_at",
}
_ORDERS: dict[Order, str] = {
    "time": "",
    "cost": "sum(cost_nano) DESC, sum(events) DESC, ",
    "events": "sum(events) DESC, ",
    "tokens": "sum(tokens_in) + sum(tokens_out) DESC, ",
    "name": "",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table. Groups are named as they were asked for."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums of one bucket, group and currency. `at` is the bucket's first instant, None without one.

    `events` are requests that were admitted, `events_ok` those with status `ok`; `requests` is what
    is billed by the request.
    """

    at: datetime | None
    groups: tuple[str, ...]
    currency: str
    events: int
    events_ok: int
    requests: int
    tokens_in: int
    tokens_out: int
    cost_nano: int
    total_ms_sum: int

    @property
    def mean_ms(self) -> int:
        """From admission to the end, the mean of its events."""
        return divide_half_away(self.total_ms_sum, self.events) if self.events else 0


@dataclass(frozen=True, slots=True)
class UsageTable:
    """Rows in the order asked for, and the totals of all that matched, one for each currency.

    `truncated`: there are more rows than `query.limit`; the totals are of all of them.
    """

    query: UsageQuery
    rows: tuple[UsageRow, ...]
    totals: tuple[UsageRow, ...]
    source: tuple[Source, ...]
    truncated: bool

    @property
    def columns(self) -> tuple[Column, ...]:
        """What `cells` gives of each row."""
        at = (Column("at", "instant"),) if self.query.bucket else ()
        counts = ("events", "events_ok", "requests", "tokens_in", "tokens_out")
        return (
            *at,
            *(Column(name, "text") for name in self.query.group_by),
            Column("currency", "text"),
            *(Column(name, "integer") for name in counts),
            Column("cost", "nano"),
            Column("mean_ms", "integer"),
        )

    def cells(self, row: UsageRow) -> tuple[Cell, ...]:
        """The row's values in the order of `columns`."""
        at = () if row.at is None else (row.at,)
        return (
            *at, *row.groups, row.currency, row.events, row.events_ok, row.requests, row.tokens_in,
            row.tokens_out, row.cost_nano, row.mean_ms,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one table in [start, end). `tag` is the SQL of a tag's value in it; a part whose sums
    are taken off has the sign `-`."""

    table: Source
    start: datetime
    end: datetime
    tag: str = ""
    sign: Literal["", "-"] = ""


def run(query: UsageQuery, *, events_only: bool = False) -> UsageTable:
    """Answer `query`. `events_only` reads no sums, to hold them to the events.

    Raises `CallerError` `period_too_long` where only events can tell and there are too many days.
    """
    parts = _parts(query, events_only)
    details: list[UsageRow] = []
    totals: list[UsageRow] = []
    currency = len(query.group_by)  # its place, behind the groups
    for is_total, at, *cells in read(*_statement(query, parts)):
        sums = map(int, cells[currency + 1 :])
        if is_total:
            totals.append(UsageRow(None, (), cells[currency], *sums))
        else:
            details.append(UsageRow(at, tuple(cells[:currency]), cells[currency], *sums))
    return UsageTable(
        query=query,
        rows=tuple(details[: query.limit]),
        totals=tuple(totals),
        source=tuple(dict.fromkeys(part.table for part in parts)),
        truncated=len(details) > query.limit,
    )


def events_matching(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    """The conditions on `usage_event` that filters are, and their parameters.

    Raises `CallerError` for what the whitelist refuses.
    """
    check_filters(filters)
    tags = [name.removeprefix(TAG) for name in filters if name.startswith(TAG)]
    return [*_matching(filters, partial(_expression, tags, ""))], _values(filters, tags)


def _parts(query: UsageQuery, events_only: bool) -> list[_Part]:
    """What is read: together, every event of the period once."""
    start, end = query.start.astimezone(UTC), query.end.astimezone(UTC)
    first_hour, last_hour = ceil(start, _HOUR), floor(end, _HOUR)
    obstacle = "" if events_only else _obstacle(query)
    if obstacle and end - start > EVENTS_DAYS_MAX * _DAY:
        raise CallerError(
            "period_too_long",
            f"{obstacle} At most {EVENTS_DAYS_MAX} days can be asked for this way.",
            field="from",
        )
    if obstacle or events_only or first_hour >= last_hour:
        return [_events(start, end)]
    sums = [_Part("usage_hour", first_hour, last_hour, _NO_TAG)]
    first_day, last_day = ceil(first_hour, _DAY), floor(last_hour, _DAY)
    by_day = query.bucket is None or (query.bucket in ("day", "month") and _is_utc(query))
    if by_day and first_day < last_day:
        sums = [
            _Part("usage_hour", first_hour, first_day, _NO_TAG),
            _Part("usage_day", first_day, last_day, _NO_TAG),
            _Part("usage_hour", last_day, last_hour, _NO_TAG),
        ]
    if query.tags:
        tagged = _Part("usage_tag_hour", first_hour, last_hour, "value")
        less_tagged = _Part("usage_tag_hour", first_hour, last_hour, _NO_TAG, "-")
        wanted = query.filters.get(TAG + query.tags[0])
        sums = [tagged] if wanted and "" not in wanted else [tagged, *sums, less_tagged]
    edges = [(start, first_hour), (last_hour, end)]
    parts = [*sums, *(_events(*edge) for edge in edges if edge[0] < edge[1])]
    return [part for part in parts if part.start < part.end]


def _events(start: datetime, end: datetime) -> _Part:
    if start < clock.now() - events_kept():
        raise CallerError(
            "single_requests_gone",
            f"Single requests are kept {kept_in_words()}. For what was before, ask for"
            " whole hours of UTC, and what sums of them tell.",
            field="from",
        )
    return _Part("usage_event", start, end)


def _obstacle(query: UsageQuery) -> str:
    """Why sums cannot serve it, in a sentence that says what would; empty if they can."""
    if query.bucket == "minute":
        return "Minutes are read from single requests; use a bucket of hour or longer."
    if query.bucket and not hours_line_up(query.zone, query.start, query.end):
        return f"Hours of {query.zone.key} do not begin with those of UTC; use tz=UTC."
    if len(query.tags) > 1:
        return "Two tags at once are read from single requests; use one."
    if query.tags and (other := sorted(query.dimensions - _IN_TAG_HOURS)):
        return f"A tag with {other[0]} is read from single requests; leave one of them out."
    return ""


def _statement(query: UsageQuery, parts: list[_Part]) -> tuple[str, dict[str, Any]]:
    """Names in it are from the whitelist; what a caller gave is in the parameters."""
    door, parameters = of_door()
    parameters |= {"zone": query.zone.key, "rows_max": query.limit + 1 + len(MINOR_DIGITS)}
    parameters |= _values(query.filters, query.tags)
    selects = []
    for n, part in enumerate(parts):
        inside, bounds = interval(part.table, part.start, part.end, f"part{n}")
        parameters |= bounds
        where = " AND ".join((door, inside, *_conditions(query, part)))
        columns = ", ".join(_selected(query, part))
        selects.append(f"SELECT {columns} FROM {part.table} WHERE {where}")  # noqa: S608
    groups = [f"g{n}" for n in range(len(query.group_by))]
    detail = ", ".join(("at", *groups, "currency"))
    by_name = [f'{group} COLLATE "C"' for group in (*groups, "currency")]
    order = query.order or ("time" if query.bucket else "cost")
    last = [*by_name, "at"] if order == "name" else ["at", *by_name]
    sums = ", ".join(f"sum({name})" for name in _SUMS)
    statement = (
        f"SELECT GROUPING(at), {detail}, {sums}"  # noqa: S608
        f" FROM ({' UNION ALL '.join(selects)}) AS usage"
        f" GROUP BY GROUPING SETS (({detail}), (currency))"
        " HAVING sum(events) > 0"  # nothing is left of a group whose events all have the tag
        f" ORDER BY 1 DESC, {_ORDERS[order]}{', '.join(last)} LIMIT %(rows_max)s"
    )
    return statement, parameters


def _selected(query: UsageQuery, part: _Part) -> Iterator[str]:
    """The columns of one part, in the same order and under the same names for each."""
    instant = _INSTANTS[part.table]
    yield f"{bucket_of(query.bucket, instant) if query.bucket else 'NULL::timestamptz'} AS at"
    for n, name in enumerate(query.group_by):
        yield f"{_expression(query.tags, part.tag, name)} AS g{n}"
    yield "currency"
    is_event = part.table == "usage_event"
    events = "1" if is_event else "events"
    written = {
        "events": events,
        "events_ok": f"CASE status WHEN 'ok' THEN {events} ELSE 0 END",
        "total_ms_sum": "total_ms" if is_event else "total_ms_sum",
    }
    for name in _SUMS:
        yield f"{part.sign}({written.get(name, name)}) AS {name}"


def _conditions(query: UsageQuery, part: _Part) -> Iterator[str]:
    """The query's filters, and of a table of all tags the one that is asked for."""
    if part.table == "usage_tag_hour":
        yield "tag = %(tag0)s"
    yield from _matching(query.filters, partial(_expression, query.tags, part.tag))


def _matching(filters: Filters, expression: Callable[[str], str]) -> Iterator[str]:
    for n, name in enumerate(filters):
        if name in IDS:
            yield f"{IDS[name]} = ANY(%(filter{n})s)"
        elif (column := expression(name)) != _NO_TAG:
            yield f"{column} = ANY(%(filter{n})s)"


def _expression(tags: Sequence[str], tag: str, name: str) -> str:
    """SQL of a dimension; of a tag it is `tag`, or what an event has under its name."""
    if not name.startswith(TAG):
        return DIMENSIONS[name]
    return tag or f"COALESCE(tags ->> %(tag{tags.index(name.removeprefix(TAG))})s, '')"


def _values(filters: Filters, tags: Sequence[str]) -> dict[str, Any]:
    """The parameters that conditions and expressions name."""
    values: dict[str, Any] = {f"tag{n}": tag for n, tag in enumerate(tags)}
    for n, (name, given) in enumerate(filters.items()):
        values[f"filter{n}"] = [UUID(each) for each in given] if name in IDS else [*given]
    return values


def _is_utc(query: UsageQuery) -> bool:
    return query.zone.key in ("UTC", "Etc/UTC")
