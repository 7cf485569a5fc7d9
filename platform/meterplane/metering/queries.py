"""Reads of usage that billing, limits and lists ask for; `usage_table` answers everything else.

Every function needs an open door (`tenants.scoping`) and answers for it. Inside `tenant_scope` the
answer is that organisation's, inside `system_scope` everybody's; without a door each raises
`TenantScopeMissing`. Intervals are half-open, [start, end), in UTC, by the instant a request came
in: the one its id was minted at, so that day, hour and billing period follow from the id however
late it arrives. Sums of any interval are exact (`spans`).

Bounds: a list has at most `PAGE_ROWS_MAX` rows and looks back `LIST_DAYS_MAX` days.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import msgspec

from meterplane.contracts.usage import Priority, Served, ServiceTier
from meterplane.kernel import clock
from meterplane.metering.reading import day_of, events_in, of_door, read
from meterplane.metering.spans import COUNTS, from_days, from_months, summed
from meterplane.metering.usage_query import Filters
from meterplane.metering.usage_table import events_matching
from tenants.scoping import current_scope, current_tenant_id

PAGE_ROWS_MAX = 500
TAG_NAMES_MAX = 50
LIST_DAYS_MAX = 92
_LIST_DAYS = (1, 8, LIST_DAYS_MAX)

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_BILLED_BY = "model, service_tier, priority, region, gpu_type, price_version_id, currency"
_SUMS = ", ".join(f"sum({name})" for name in COUNTS)


@dataclass(frozen=True, slots=True)
class UsageAggregate:
    """Sums of one model and service tier at one price version: what rating needs.

    `served` are the values of what else was asked for, in that order.
    """

    model: str
    service_tier: ServiceTier
    price_version_id: UUID
    currency: str
    requests: int
    tokens_in: int
    tokens_out: int
    events: int
    cost_nano: int
    served: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyModelUsage:
    """What one key of a project used of one model over an interval.

    `events` are the requests that were admitted, as limits count them.
    """

    project_id: UUID
    key_id: UUID
    model: str
    events: int
    tokens_in: int
    tokens_out: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request. `project_id` and `key_id` are looked up by who shows them."""

    request_id: UUID
    tenant_id: UUID
    project_id: UUID
    key_id: UUID
    event_at: datetime
    settled_at: datetime
    model: str
    surface: str
    stream: bool
    status: str
    http_status: int
    tokens_in: int
    tokens_out: int
    requests: int
    rows: int
    bytes_in: int
    bytes_out: int
    provenance: str
    currency: str
    price_version_id: UUID
    cost_nano: int
    reserved_nano: int
    first_byte_ms: int
    total_ms: int
    server: str
    service_tier: ServiceTier
    requested_model: str
    deployment: str
    tensor_bytes_in: int
    tensor_bytes_out: int
    queue_us: int
    compute_us: int
    retries: int
    trace_id: str
    epoch: str
    admitted_at: datetime | None
    tokens_out_stop: int
    tags: dict[str, str]
    priority: Priority
    region: str
    gpu_type: str
    segment_id: UUID
    ingested_at: datetime


_ROW_COLUMNS = ", ".join(RequestRow.__slots__)
_TAGS = RequestRow.__slots__.index("tags")


def usage_between(
    start: datetime, end: datetime, served: Sequence[Served] = ()
) -> list[UsageAggregate]:
    """Sums by model, service tier, price version, currency and what is asked for of how they were
    served, exact for any two instants."""
    source, parameters = summed(from_months(start, end), _BILLED_BY)
    columns = ", ".join(("model, service_tier, price_version_id, currency", *served))
    rows = read(
        f"SELECT {columns}, {_SUMS} FROM ({source}) AS usage"
        f" GROUP BY {columns} HAVING sum(events) <> 0 ORDER BY {columns}",
        parameters,
    )
    sums = 4 + len(served)
    return [
        UsageAggregate(*row[:4], *map(int, row[sums:]), served=row[4:sums])  # type: ignore[misc]
        for row in rows
    ]


def cost_between(first_day: date, end: datetime) -> int:
    """Metered cost in nano from the beginning of a day up to an instant, of what has arrived."""
    start = datetime.combine(first_day, time.min, UTC)
    source, parameters = summed(from_months(start, end), "model")
    ((nano,),) = read(f"SELECT COALESCE(sum(cost_nano), 0) FROM ({source}) AS usage", parameters)
    return int(nano)


def usage_by_key_and_model(start: datetime, end: datetime) -> list[KeyModelUsage]:
    """Who used what: a key's limits, its project's and the organisation's are sums of these."""
    source, parameters = summed(from_days(start, end), "project_id, key_id, model")
    rows = read(
        "SELECT project_id, key_id, model, sum(events), sum(tokens_in), sum(tokens_out),"
        f" sum(cost_nano) FROM ({source}) AS usage GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        parameters,
    )
    return [KeyModelUsage(*row[:3], *map(int, row[3:])) for row in rows]


def recent_requests(
    limit: int,
    before: UUID | None = None,
    *,
    filters: Filters | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[RequestRow]:
    """The newest requests first; for the next page, `before` is the last request id shown.

    `filters` are those of a `UsageQuery`; [since, until) bounds them. Looks back `LIST_DAYS_MAX`
    days from `before`, or from `until`, or from the newest there is: first over few days, because a
    page of an organisation in use is full within one, and sorting ninety partitions to show twenty
    rows is what makes such a page slow. An unknown `before` has nothing before it.
    """
    newest = _listing_end(before, until)
    if newest is None:
        return []
    newest_at, newest_id = newest
    door, parameters = of_door()
    parameters |= {
        "rows_max": max(1, min(limit, PAGE_ROWS_MAX)),
        "newest": newest_at,
        "newest_day": newest_at.date(),
        "newest_id": newest_id,
        "since": since,
        "until": until,
    }
    conditions = [door, "event_day BETWEEN %(oldest_day)s AND %(newest_day)s"]
    conditions.append(
        "event_at <= %(newest)s"
        if newest_id is None
        else "(event_at, request_id) < (%(newest)s, %(newest_id)s)"
    )
    conditions += ["event_at >= %(since)s"] if since else []
    conditions += ["event_at < %(until)s"] if until else []
    matching, values = events_matching(filters or {})
    rows: list[tuple[Any, ...]] = []
    for days in _LIST_DAYS:
        oldest = newest_at - days * _DAY
        rows = read(
            f"SELECT {_ROW_COLUMNS} FROM usage_event"
            f" WHERE {' AND '.join((*conditions, *matching))}"
            " ORDER BY event_at DESC, request_id DESC LIMIT %(rows_max)s",
            parameters | values | {"oldest_day": oldest.date()},
        )
        if len(rows) == parameters["rows_max"] or (since and oldest < since):
            break
    return [_request(row) for row in rows]


def request_by_id(request_id: UUID) -> RequestRow | None:
    """One request of the open door, from one partition; None if there is none."""
    door, parameters = of_door()
    day = day_of(request_id)
    if day is None:
        return None
    rows = read(
        f"SELECT {_ROW_COLUMNS} FROM usage_event WHERE {door}"
        " AND event_day = %(event_day)s AND request_id = %(request_id)s",
        parameters | {"event_day": day, "request_id": request_id},
    )
    return _request(rows[0]) if rows else None


def tag_names() -> list[str]:
    """The names of the tags that usage of one organisation has, at most `TAG_NAMES_MAX`.

    Each is found by one step down the primary key, however many rows it has.
    """
    rows = read(
        "WITH RECURSIVE known AS ("
        " (SELECT min(tag) AS tag FROM usage_tag_hour WHERE tenant_id = %(tenant_id)s)"
        " UNION ALL"
        " SELECT (SELECT min(tag) FROM usage_tag_hour"
        "          WHERE tenant_id = %(tenant_id)s AND tag > known.tag)"
        "   FROM known WHERE known.tag IS NOT NULL)"
        " SELECT tag FROM known WHERE tag IS NOT NULL LIMIT %(rows_max)s",
        {"tenant_id": current_tenant_id(), "rows_max": TAG_NAMES_MAX},
    )
    return [name for (name,) in rows]


def first_month_used() -> datetime | None:
    """The first instant of the first month the open door has usage of, however late it arrived."""
    door, parameters = of_door()
    ((month,),) = read(
        f"SELECT min(month) FROM usage_month WHERE {door} AND events > 0", parameters
    )
    return datetime(month.year, month.month, 1, tzinfo=UTC) if month else None


def last_usage_at() -> datetime | None:
    """The last instant the open door has usage from: the hour from the roll-up, then the instant
    from that hour's events."""
    door, parameters = of_door()
    ((hour,),) = read(f"SELECT max(hour) FROM usage_hour WHERE {door}", parameters)
    if hour is None:
        return None
    condition, interval = events_in(hour, hour + _HOUR, "last")
    ((instant,),) = read(
        f"SELECT max(event_at) FROM usage_event WHERE {door} AND {condition}",
        parameters | interval,
    )
    return _instant(instant) or hour  # the events of an archived day are in a file


def keys_last_used() -> dict[UUID, datetime]:
    """The hour each key of the open door was last used in."""
    door, parameters = of_door()
    rows = read(
        f"SELECT key_id, max(hour) FROM usage_hour WHERE {door} GROUP BY key_id", parameters
    )
    return {row[0]: row[1] for row in rows}


def _listing_end(
    before: UUID | None, until: datetime | None
) -> tuple[datetime, UUID | None] | None:
    """Where a page starts: behind the request `before`, or at the newest instant there is."""
    if before is not None:
        row = request_by_id(before)
        return (row.event_at, row.request_id) if row else None
    if until is None and current_scope().tenant_id is None:
        until = clock.now() + _DAY  # over everybody there is no index on time alone
    newest = until or last_usage_at()
    return (newest.astimezone(UTC), None) if newest else None


def _request(row: tuple[Any, ...]) -> RequestRow:
    cells = [*row]
    cells[_TAGS] = msgspec.json.decode(cells[_TAGS], type=dict[str, str])
    return RequestRow(*cells)


def _instant(instant: Any) -> datetime | None:
    return instant if isinstance(instant, datetime) else None
