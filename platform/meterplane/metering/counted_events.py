"""The events behind a sum that a bill has counted: listed in pages, and added up again.

Needs one tenant's door. An interval is half-open, in UTC, by the instant a request came in. The
order is that of request ids, which is that of instants; a cursor is the last id of the page before.

A day whose events are in the archive cannot be listed: `archived_days` names it, and whoever asks
for events is told so instead of being shown less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from meterplane.contracts.usage import SERVED, ServiceTier
from meterplane.kernel.errors import CallerError
from meterplane.kernel.invariant import ensure
from meterplane.metering.arrivals import Reading, counted
from meterplane.metering.queries import PAGE_ROWS_MAX
from meterplane.metering.reading import day_of, of_door, read

Counter = Literal["tokens_in", "tokens_out", "requests"]


class Pinned(NamedTuple):
    """The events of one model, service tier and price version in an interval. `served`: only those
    that have these values of columns, which sums tell apart."""

    starts_at: datetime
    ends_at: datetime
    model: str
    service_tier: ServiceTier
    price_version_id: UUID
    served: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Before:
    """What was counted before: the events from before `until` that `reading` had seen."""

    reading: Reading
    until: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """One counter of some events, as they were counted: what `counted_by` had seen, without what
    was counted `before`."""

    parts: tuple[Pinned, ...]
    counter: Counter
    counted_by: Reading
    before: Before | None = None

    @property
    def is_exact(self) -> bool:
        return self.counted_by.is_exact and (self.before is None or self.before.reading.is_exact)


@dataclass(frozen=True, slots=True)
class CountedEvent:
    """One request and the units it adds to its slice."""

    request_id: UUID
    received_at: datetime
    ingested_at: datetime
    project_id: UUID
    key_id: UUID
    status: str
    units: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What a slice adds up to."""

    events: int
    units: int


@dataclass(frozen=True, slots=True)
class CountedShare:
    """What one key of a project adds to a slice on one day."""

    day: date
    project_id: UUID
    key_id: UUID
    events: int
    units: int


def total(part: Slice) -> Counted:
    """The slice added up from its events. Raises `CallerError` `events_archived`."""
    refuse_archived(part)
    where, parameters = _where(part)
    ((events, units),) = read(
        f"SELECT count(*), COALESCE(sum({part.counter}), 0)"  # noqa: S608  constants
        f" FROM usage_event WHERE {where}",
        parameters,
    )
    return Counted(events, int(units))


def page(part: Slice, limit: int, after: UUID | None = None) -> list[CountedEvent]:
    """The next events, oldest first. An `after` that no request can have has nothing behind it.

    Raises `CallerError` `events_archived`.
    """
    refuse_archived(part)
    return _page(part, min(max(limit, 1), PAGE_ROWS_MAX), after)


def by_key_and_day(part: Slice) -> list[CountedShare]:
    """Who used it when. Raises `CallerError` `events_archived`."""
    refuse_archived(part)
    where, parameters = _where(part)
    rows = read(
        "SELECT event_day, project_id, key_id, count(*),"  # noqa: S608  constants
        f" sum({part.counter}) FROM usage_event"
        f" WHERE {where} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        parameters,
    )
    return [
        CountedShare(day, project_id, key_id, events, int(units))
        for day, project_id, key_id, events, units in rows
    ]


def is_counted(request_id: UUID, reading: Reading) -> bool:
    """Whether `reading` counted the event of this request."""
    door, parameters = of_door()
    condition, values = counted(reading, "reading")
    rows = read(
        f"SELECT FROM usage_event WHERE {door} AND event_day = %(day)s"
        f" AND request_id = %(request_id)s AND {condition}",
        parameters | values | {"day": day_of(request_id), "request_id": request_id},
    )
    return bool(rows)


def archived_days(part: Slice) -> list[date]:
    """Days of the slice that there are sums of, and no event: they went to a file, whole."""
    door, parameters = of_door()
    kinds, values = _kinds(part.parts, "day BETWEEN {first} AND {last}")
    rows = read(
        f"SELECT DISTINCT day FROM usage_day d WHERE {door} AND ({kinds})"  # noqa: S608  constants
        " AND NOT EXISTS (SELECT FROM usage_event e"
        "                  WHERE e.tenant_id = d.tenant_id AND e.event_day = d.day)"
        " ORDER BY day",
        parameters | values,
    )
    return [day for (day,) in rows]


def refuse_archived(part: Slice) -> None:
    """Raises `CallerError` `events_archived` if not every event of the slice is here."""
    days = archived_days(part)
    if days:
        many = f"{len(days)} days from {days[0]} to {days[-1]}" if len(days) > 1 else f"{days[0]}"
        raise CallerError(
            "events_archived",
            f"The single events of {many} are in the archive and cannot be listed here; their sums"
            " stay. An operator brings a day back: manage.py restore_usage_day <day>.",
            status=409,
        )


def _page(part: Slice, limit: int, after: UUID | None) -> list[CountedEvent]:
    where, parameters = _where(part)
    if after is not None:
        day = day_of(after)
        if day is None:
            return []
        where += " AND event_day >= %(day)s AND (event_day, request_id) > (%(day)s, %(after)s)"
        parameters |= {"day": day, "after": after}
    rows = read(
        "SELECT request_id, event_at, ingested_at, project_id, key_id,"  # noqa: S608  constants
        f" status, {part.counter} FROM usage_event WHERE {where}"
        " ORDER BY event_day, request_id LIMIT %(rows_max)s",
        parameters | {"rows_max": limit},
    )
    return [CountedEvent(*row) for row in rows]


def _where(part: Slice) -> tuple[str, dict[str, Any]]:
    door, parameters = of_door()
    kinds, values = _kinds(
        part.parts,
        "event_at >= {start} AND event_at < {end} AND event_day BETWEEN {first} AND {last}",
    )
    seen, readings = counted(part.counted_by, "seen")
    conditions = [door, f"({kinds})", f"{part.counter} > 0", seen]
    if part.before is not None:
        counted_before, more = counted(part.before.reading, "before")
        conditions.append(f"NOT ({counted_before} AND event_at < %(before_until)s)")
        readings |= more | {"before_until": part.before.until}
    return " AND ".join(conditions), parameters | values | readings


def _kinds(parts: Sequence[Pinned], within: str) -> tuple[str, dict[str, Any]]:
    """The condition for being of one of the parts; of none, nothing is."""
    conditions = ["false"]
    parameters: dict[str, Any] = {}
    for n, each in enumerate(parts):
        names = ("start", "end", "first", "last", "model", "tier", "version")
        last = (each.ends_at - timedelta(microseconds=1)).date()  # at midnight, its day is left out
        values = (each.starts_at, each.ends_at, each.starts_at.date(), last, *each[2:5])
        parameters |= {f"{name}{n}": value for name, value in zip(names, values, strict=True)}
        interval = within.format(**{name: f"%({name}{n})s" for name in names})
        served = ""
        for name, value in each.served:
            ensure(name in SERVED, f"sums are told apart by {name}")
            parameters[f"{name}{n}"] = value
            served += f" AND {name} = %({name}{n})s"
        conditions.append(
            f"({interval} AND model = %(model{n})s AND service_tier = %(tier{n})s"
            f" AND price_version_id = %(version{n})s{served})"
        )
    return " OR ".join(conditions), parameters
