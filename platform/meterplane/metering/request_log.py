"""Single requests, newest first, a page at a time; by what usage may be asked by.

Needs an open door and answers for it. A page begins behind the request whose id is the cursor: when
a request came in follows from its id, so the cursor is a place in time also where no such request
is, and nothing has to be looked up. New requests never move what is on later pages.
"""

import json
from dataclasses import fields
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import minted_at_ms
from meterplane.metering.queries import LIST_DAYS_MAX, PAGE_ROWS_MAX, RequestRow
from meterplane.metering.reading import day_of, events_in, of_door, read
from meterplane.metering.usage_query import DIMENSIONS, IDS, TAG, UsageQuery

_DAY = timedelta(days=1)
# A page of who calls often is full within a day: sorting ninety partitions for it would be slow.
_LOOKS_BACK_DAYS = (1, 8, LIST_DAYS_MAX)


LoggedRequest = RequestRow

_COLUMNS = ", ".join(each.name for each in fields(LoggedRequest))


def requests_page(query: UsageQuery, limit: int, before: UUID | None = None) -> list[LoggedRequest]:
    """At most `limit` requests of the query's period and filters that came in before `before`.

    Raises `CallerError` `period_too_long` above `LIST_DAYS_MAX` days.
    """
    if query.end - query.start > LIST_DAYS_MAX * _DAY:
        raise CallerError(
            "period_too_long",
            f"Requests are listed over at most {LIST_DAYS_MAX} days; ask for a shorter period.",
            field="from",
        )
    start, end = query.start.astimezone(UTC), query.end.astimezone(UTC)
    conditions, parameters = _conditions(query)
    if before is not None:
        at = clock.from_ms(minted_at_ms(before))
        conditions.append("(event_at, request_id) < (%(before_at)s, %(before)s)")
        parameters |= {"before_at": at, "before": before}
        end = min(end, at + timedelta(milliseconds=1))
    rows: list[tuple[Any, ...]] = []
    parameters["rows_max"] = max(1, min(limit, PAGE_ROWS_MAX))
    for days in _LOOKS_BACK_DAYS:
        first = max(start, end - days * _DAY)
        interval, bounds = events_in(first, end, "page")
        where = " AND ".join((interval, *conditions))
        rows = read(
            f"SELECT {_COLUMNS} FROM usage_event WHERE {where}"  # noqa: S608
            " ORDER BY event_at DESC, request_id DESC LIMIT %(rows_max)s",
            parameters | bounds,
        )
        if len(rows) == parameters["rows_max"] or first <= start:
            break
    return [_logged(row) for row in rows]


def logged_request(request_id: UUID) -> LoggedRequest | None:
    """One request of the open door, from one partition; None if there is none."""
    day = day_of(request_id)
    if day is None:
        return None
    door, parameters = of_door()
    rows = read(
        f"SELECT {_COLUMNS} FROM usage_event WHERE {door}"  # noqa: S608
        " AND event_day = %(event_day)s AND request_id = %(request_id)s",
        parameters | {"event_day": day, "request_id": request_id},
    )
    return _logged(rows[0]) if rows else None


def _logged(row: tuple[Any, ...]) -> LoggedRequest:
    found = dict(zip((each.name for each in fields(LoggedRequest)), row, strict=True))
    # JSON comes as it stands in the table.
    return LoggedRequest(**found | {"tags": json.loads(found["tags"])})


def _conditions(query: UsageQuery) -> tuple[list[str], dict[str, Any]]:
    """Names in them are from the whitelist; what a caller gave is in the parameters."""
    door, parameters = of_door()
    conditions = [door]
    for number, (name, values) in enumerate(query.filters.items()):
        value, tag = f"filter{number}", f"tag{number}"
        parameters[value] = [UUID(each) for each in values] if name in IDS else [*values]
        expression = IDS.get(name) or DIMENSIONS.get(name)
        if expression is None:
            parameters[tag] = name.removeprefix(TAG)
            expression = f"COALESCE(tags ->> %({tag})s, '')"
        conditions.append(f"{expression} = ANY(%({value})s)")
    return conditions, parameters
