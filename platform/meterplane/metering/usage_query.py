"""What may be asked of usage: one whitelist for the API, the portal, CSV and the command line.

A `UsageQuery` that exists is one that can be answered: names outside the whitelist, values that
nothing can have and periods longer than their bound are refused when it is made. `usage_table.run`
answers it. Nothing here reads the database or opens a door.

As a query string, each parameter once unless said otherwise:

    from, to      half-open [from, to): an instant (2026-11-03T10:00:00Z), or a day, which is its
                  midnight in `tz`, as is an instant that names no offset; by default the month
                  so far
    last          instead of both: 12h, 30d or 8w until now
    bucket        minute, hour, day or month; without it, sums over the whole period
    tz            the zone that days begin in, e.g. Europe/Berlin; UTC by default
    group_by      at most three, with commas between or repeated: organisation, project, key, model,
                  surface, status, service_tier, priority, price_version, deployment, region,
                  gpu_type, tag:<name>
    <the same>    only usage with this value; given again, with any of them: model=a&model=b
    order, limit  time, cost, events, tokens or name; rows

Organisations, projects, keys and price versions are their ids. A deployment is `model @
deployment`, because two models may each have one of the same name. A tag that an event does not
have is the empty text, as is the region and the GPU type of what the catalog does not place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, cast, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from meterplane.contracts.usage import (
    TAG_NAME_CHARS_MAX,
    TAG_VALUE_CHARS_MAX,
    Priority,
    ServiceTier,
    Status,
    Surface,
)
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.buckets import UNITS, Unit, zone_named

Order = Literal["time", "cost", "events", "tokens", "name"]
ORDERS: tuple[Order, ...] = get_args(Order)

# What usage is grouped and filtered by, beside tags, and the SQL of it over any table of usage.
DIMENSIONS = {
    "organisation": "tenant_id::text",
    "project": "project_id::text",
    "key": "key_id::text",
    "model": "model",
    "surface": "surface",
    "status": "status",
    "service_tier": "service_tier",
    "price_version": "price_version_id::text",
    "priority": "priority",
    "region": "region",
    "gpu_type": "gpu_type",
    "deployment": "CASE deployment WHEN '' THEN model ELSE model || ' @ ' || deployment END",
}
IDS = {
    "organisation": "tenant_id",
    "project": "project_id",
    "key": "key_id",
    "price_version": "price_version_id",
}
TAG = "tag:"
Filters = Mapping[str, tuple[str, ...]]

GROUPS_MAX = 3
ROWS_MAX = 50_000  # 800 days of 60 models; what a page can still draw
FILTER_VALUES_MAX = 100
TAGS_FILTERED_MAX = 4
VALUE_CHARS_MAX = TAG_VALUE_CHARS_MAX
_DAY = timedelta(days=1)
BUCKET_DAYS_MAX: dict[Unit, int] = {"minute": 1, "hour": 93, "day": 800, "month": 3_660}
PERIOD_DAYS_MAX = BUCKET_DAYS_MAX["month"]
_YEARS = (2000, 2200)

_KNOWN_VALUES: dict[str, tuple[str, ...]] = {
    "surface": get_args(Surface),
    "status": get_args(Status),
    "service_tier": get_args(ServiceTier),
    "priority": get_args(Priority),
}
_SINGLE = ("from", "to", "last", "bucket", "tz", "order", "limit")
_OF_USAGE = (*_SINGLE, "group_by")
_OF_REQUESTS = ("from", "to", "last", "tz", "limit", "cursor")
_LAST = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_LAST_UNITS = {"h": timedelta(hours=1), "d": _DAY, "w": 7 * _DAY}
_SPACED_OFFSET = re.compile(r"(T[0-9:.]+) ([0-9]{2}:?[0-9]{2})")


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Usage in [start, end), two instants, summed by `bucket` of `zone` and by `group_by`.

    Raises `CallerError` for what the whitelist or a bound refuses, `ValueError` for an instant
    without a zone.
    """

    start: datetime
    end: datetime
    bucket: Unit | None = None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    group_by: tuple[str, ...] = ()
    filters: Filters = field(default_factory=dict)
    order: Order | None = None
    limit: int = ROWS_MAX

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a naive datetime has no instant; attach UTC first")
        _check_period(self)
        if len(self.group_by) > GROUPS_MAX or len(set(self.group_by)) < len(self.group_by):
            raise CallerError(
                "too_many_groups",
                f"Group by at most {GROUPS_MAX} dimensions, each of them once.",
                field="group_by",
            )
        for name in self.group_by:
            _check_dimension(name, "group_by")
        check_filters(self.filters)
        if not 1 <= self.limit <= ROWS_MAX:
            raise CallerError(
                "limit_out_of_range", f"Ask for 1 to {ROWS_MAX:,} rows.", field="limit"
            )

    @property
    def tags(self) -> tuple[str, ...]:
        """The names of all tags it groups or filters by, each once."""
        named = [name for name in (*self.group_by, *self.filters) if name.startswith(TAG)]
        return tuple(dict.fromkeys(name.removeprefix(TAG) for name in named))

    @property
    def dimensions(self) -> frozenset[str]:
        """What it groups or filters by, tags aside."""
        return frozenset((*self.group_by, *self.filters)) & DIMENSIONS.keys()


def parse(params: Mapping[str, Sequence[str]], *, ignore: Iterable[str] = ()) -> UsageQuery:
    """The query that a query string asks, as the module's docstring describes it.

    `params` has all values of each name, as `dict(request.GET.lists())`. Names in `ignore` are the
    caller's own, e.g. `format`. Raises `CallerError` that names the field and what is allowed.
    """
    given = {name: list(values) for name, values in params.items() if name not in set(ignore)}
    for name in given:
        if name not in _OF_USAGE:
            _check_dimension(name, name[:64])
    single = {name: _only(name, given.pop(name)) for name in _SINGLE if given.get(name)}
    groups = [part.strip() for text in given.pop("group_by", []) for part in text.split(",")]
    zone = zone_named(single.get("tz", "UTC"))
    start, end = _period(single, zone)
    bucket, order = single.get("bucket"), single.get("order")
    return UsageQuery(
        start=start,
        end=end,
        bucket=cast("Unit", _one_of("bucket", bucket, UNITS)) if bucket else None,
        zone=zone,
        group_by=tuple(group for group in groups if group),
        filters={name: tuple(values) for name, values in given.items() if values},
        order=cast("Order", _one_of("order", order, ORDERS)) if order else None,
        limit=_count(single.get("limit", str(ROWS_MAX)), ROWS_MAX, "rows"),
    )


@dataclass(frozen=True, slots=True)
class RequestQuery:
    """Single requests in [since, until), newest first; those older than the request `cursor`."""

    since: datetime | None
    until: datetime | None
    filters: Filters
    limit: int
    cursor: UUID | None


def parse_requests(
    params: Mapping[str, Sequence[str]], *, limit_default: int, limit_max: int
) -> RequestQuery:
    """A list of single requests: the filters and `from`, `to`, `last`, `tz` of a usage query, with
    `limit` and `cursor`, the last id of the page before. Raises `CallerError`."""
    given = {name: list(values) for name, values in params.items()}
    for name in given:
        if name not in _OF_REQUESTS:
            _check_dimension(name, name[:64], _OF_REQUESTS)
    single = {name: _only(name, given.pop(name)) for name in _OF_REQUESTS if given.get(name)}
    since = until = None
    if single.keys() & {"from", "to", "last"}:
        since, until = _period(single, zone_named(single.get("tz", "UTC")))
        since = since if single.keys() & {"from", "last"} else None
    if since and until and since >= until:
        raise CallerError("period_empty", "The period must begin before it ends.", field="from")
    filters = {name: tuple(values) for name, values in given.items() if values}
    check_filters(filters)
    cursor = single.get("cursor")
    if cursor is not None and not _is_id(cursor):
        raise CallerError(
            "invalid_cursor", "Give next_cursor of the page before, as it is.", field="cursor"
        )
    limit = _count(single.get("limit", str(limit_default)), limit_max, "requests")
    return RequestQuery(since, until, filters, limit, UUID(cursor) if cursor else None)


def check_filters(filters: Filters) -> None:
    """Raises `CallerError` for a dimension or a value that nothing can have."""
    for name, values in filters.items():
        _check_dimension(name, name[:64])
        _check_values(name, values)
    if sum(name.startswith(TAG) for name in filters) > TAGS_FILTERED_MAX:
        raise CallerError(
            "too_many_filters",
            f"Filter by at most {TAGS_FILTERED_MAX} tags at a time.",
            field="tag",
        )


def _check_period(query: UsageQuery) -> None:
    if query.start >= query.end:
        raise CallerError("period_empty", "The period must begin before it ends.", field="from")
    _check_year("from", query.start)
    _check_year("to", query.end)
    days = BUCKET_DAYS_MAX[query.bucket] if query.bucket else PERIOD_DAYS_MAX
    if query.end - query.start > days * _DAY:
        longer = [unit for unit in UNITS if BUCKET_DAYS_MAX[unit] > days]
        advice = f", or a bucket of {longer[0]}" if longer else ""
        series = f"by {query.bucket}" if query.bucket else "of usage"
        raise CallerError(
            "period_too_long",
            f"A table {series} spans at most {days} days; ask for a shorter period{advice}.",
            field="bucket" if query.bucket else "from",
        )


def _check_year(name: str, instant: datetime) -> None:
    """Calendars end: nothing beyond these years is moved between zones."""
    if not _YEARS[0] <= instant.year < _YEARS[1]:
        raise CallerError(
            "instant_out_of_range",
            f"Give an instant between the years {_YEARS[0]} and {_YEARS[1]}.",
            field=name,
        )


def _check_dimension(name: str, said_in: str, parameters: tuple[str, ...] = _OF_USAGE) -> None:
    if name in DIMENSIONS:
        return
    tag = name.removeprefix(TAG)
    if name.startswith(TAG) and 0 < len(tag) <= TAG_NAME_CHARS_MAX and _is_text(tag):
        return
    known = ", ".join((*DIMENSIONS, "tag:<name>"))
    if said_in == "group_by" and "group_by" in parameters:
        raise CallerError(
            "unknown_dimension", f"Usage is grouped by {known}; not {name[:64]!r}.", field=said_in
        )
    raise CallerError(
        "unknown_parameter",
        f"{name[:64]!r} is no parameter here. Known are {', '.join(parameters)}, and as filters"
        f" {known}.",
        field=said_in,
    )


def _check_values(name: str, values: tuple[str, ...]) -> None:
    if not 1 <= len(values) <= FILTER_VALUES_MAX:
        raise CallerError(
            "too_many_values", f"Give 1 to {FILTER_VALUES_MAX} values of {name}.", field=name
        )
    for value in values:
        if len(value) > VALUE_CHARS_MAX or not _is_text(value):
            raise CallerError(
                "invalid_value",
                f"A value is text of at most {VALUE_CHARS_MAX} characters.",
                field=name,
            )
        if name in IDS and not _is_id(value):
            raise CallerError(
                "invalid_id",
                f"{value!r} is no id; a {name.replace('_', ' ')} is named by its UUID.",
                field=name,
            )
        if name in _KNOWN_VALUES:
            _one_of(name, value, _KNOWN_VALUES[name])


def _is_text(value: str) -> bool:
    """What PostgreSQL can hold as text: no NUL, no half of a surrogate pair."""
    return "\x00" not in value and not any("\ud800" <= each <= "\udfff" for each in value)


def _is_id(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _only(name: str, values: Sequence[str]) -> str:
    if len(values) != 1:
        raise CallerError("given_twice", f"Give {name} once.", field=name)
    return values[0]


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise CallerError(
            f"unknown_{name}", f"{value[:64]!r} is not one of {', '.join(known)}.", field=name
        )
    return value


def _count(text: str, most: int, of: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= most:
        raise CallerError("limit_out_of_range", f"Ask for 1 to {most:,} {of}.", field="limit")
    return int(text)


def _period(given: Mapping[str, str], zone: ZoneInfo) -> tuple[datetime, datetime]:
    if last := given.get("last"):
        if "from" in given or "to" in given:
            raise CallerError("given_twice", "Give last, or from and to.", field="last")
        matched = _LAST.fullmatch(last)
        span = int(matched[1]) * _LAST_UNITS[matched[2]] if matched else None
        if span is None or span > PERIOD_DAYS_MAX * _DAY:
            raise CallerError(
                "invalid_period", "Give last like 12h, 30d or 8w, up to ten years.", field="last"
            )
        now = clock.now()
        return now - span, now
    end = _instant("to", given["to"], zone) if "to" in given else clock.now()
    if "from" in given:
        return _instant("from", given["from"], zone), end
    month = (end - timedelta(microseconds=1)).astimezone(zone).replace(day=1, fold=0)
    return month.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC), end


def _instant(name: str, text: str, zone: ZoneInfo) -> datetime:
    # A plus sign that was not escaped arrives as a space.
    text = _SPACED_OFFSET.sub(r"\1+\2", text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise CallerError(
            "invalid_instant",
            f"{text[:64]!r} is no instant; write 2026-11-03T10:00:00Z, or 2026-11-03 for a day.",
            field=name,
        ) from None
    _check_year(name, instant)
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC)
