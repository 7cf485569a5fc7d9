"""Usage as pages of a typed table, each read by itself: memory does not grow with what is read.

A page begins at a `Place`, which is what the page before ended with. So whoever was stopped goes on
where the last page that counts ended, and reads what was read before: pages hold only usage that
was taken in by `ingested_until`, in the order of a key that never changes. Needs an open door; the
system's reads all organisations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from meterplane.kernel.invariant import ensure
from meterplane.metering.event_table import EVENT_COLUMNS, event_batch, event_schema
from meterplane.metering.exports.limits import PAGE_ROWS
from meterplane.metering.exports.query import ExportQuery
from meterplane.metering.reading import of_door, read
from meterplane.metering.usage_query import DIMENSIONS, IDS, TAG

# A day, and behind which key in it the page begins. JSON, for it is stored.
Place = list[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows; where the next page begins, None after the last; what they cost by currency."""

    rows: pa.RecordBatch
    next: Place | None
    cost_nano: dict[str, int]


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of export. Its schema carries what a file says of itself; `timespec` is that of
    instants as text."""

    schema: pa.Schema
    first: Place
    page: Callable[[Place], Page]
    timespec: str = "milliseconds"


# What is of the installation, not of the usage, stays out.
_OURS = {"server", "segment_id", "epoch", "tokens_out_stop", "ingested_at"}
COLUMNS = tuple(name for name in EVENT_COLUMNS if name not in _OURS)
_COST, _CURRENCY = COLUMNS.index("cost_nano"), COLUMNS.index("currency")
_KEY = (COLUMNS.index("tenant_id"), COLUMNS.index("request_id"))


def events_source(query: ExportQuery, ingested_until: datetime) -> Source:
    """The events themselves, by day, organisation and request id, which is by time."""
    where, parameters = conditions(query)
    # The last key is compared with all columns of the primary key, so that its index begins there:
    # with the day left out of it, each page would read the day from its start. A day that is whole
    # names no instants: the planner would take their index, and sort the day for each page.
    select = (
        f"SELECT {', '.join(COLUMNS)} FROM usage_event WHERE {where}"  # noqa: S608  our constants
        " AND event_day = %(day)s AND ingested_at <= %(ingested_until)s"
        " AND (tenant_id, event_day, request_id) > (%(tenant_after)s, %(day)s, %(request_after)s)"
    )
    of_interval = " AND event_at >= %(start)s AND event_at < %(end)s"
    order = " ORDER BY tenant_id, event_day, request_id LIMIT %(rows_max)s"
    parameters |= {
        "start": query.start,
        "end": query.end,
        "ingested_until": ingested_until,
        "rows_max": PAGE_ROWS,
    }

    def page(place: Place) -> Page:
        day, tenant_after, request_after = place
        rows = read(
            select + ("" if query.is_whole(day) else of_interval) + order,
            parameters | {
                "day": day, "tenant_after": tenant_after, "request_after": request_after,
            },
        )  # fmt: skip
        cost: dict[str, int] = {}
        for row in rows:
            cost[row[_CURRENCY]] = cost.get(row[_CURRENCY], 0) + row[_COST]
        following: Place | None
        if len(rows) == PAGE_ROWS:
            following = [day, *(str(rows[-1][column]) for column in _KEY)]  # tenant, request
        else:
            following = next_day(query, day)
        return Page(event_batch(rows, COLUMNS), following, cost)

    return Source(event_schema(COLUMNS), _beginning(query.first_day), page)


NOBODY = "00000000-0000-0000-0000-000000000000"


def _beginning(day: date) -> Place:
    return [day.isoformat(), NOBODY, NOBODY]


def next_day(query: ExportQuery, day: str) -> Place | None:
    """The beginning of the day after, as long as it is of the interval."""
    after = date.fromisoformat(day) + timedelta(days=1)
    return _beginning(after) if after <= query.last_day else None


def conditions(query: ExportQuery) -> tuple[str, dict[str, Any]]:
    """The open door's and the filters' conditions on `usage_event`."""
    door, parameters = of_door()
    parts = [door]
    for number, (name, values) in enumerate(query.filters.items()):
        wanted = f"filter{number}"
        if name in IDS:
            parts.append(f"{IDS[name]} = ANY(%({wanted})s::uuid[])")
        elif name.startswith(TAG):
            parts.append(f"COALESCE(tags ->> %(tag{number})s, '') = ANY(%({wanted})s)")
            parameters[f"tag{number}"] = name.removeprefix(TAG)
        else:
            parts.append(f"{DIMENSIONS[name]} = ANY(%({wanted})s)")
        parameters[wanted] = list(values)
    return " AND ".join(parts), parameters


def source_of(query: ExportQuery, ingested_until: datetime) -> Source:
    """Where the pages of an export come from. Inside the door they are read in."""
    from meterplane.metering.exports.focus import focus_source
    from meterplane.metering.exports.sums import sums_source

    match query.kind:
        case "events":
            return events_source(query, ingested_until)
        case "focus":
            return focus_source(query, ingested_until)
        case "usage":
            return sums_source(query, ingested_until)


def all_pages(source: Source) -> Iterator[Page]:
    """Every page, from the beginning, in one door."""
    place: Place | None = source.first
    while place is not None:
        page = source.page(place)
        ensure(page.next != place, "a page gets on")
        place = page.next
        yield page
