"""What an export holds: kind, format, interval and filters, checked before anything is stored.

Interval, filters and groups are those of `usage_query`, by the same names: what a page shows can be
exported by the address it has. Of events and FOCUS rows groups say nothing; FOCUS rows are by hour
or by day.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, cast, get_args
from zoneinfo import ZoneInfo

import msgspec

from meterplane.kernel.errors import CallerError
from meterplane.metering.buckets import Unit
from meterplane.metering.exports.limits import DAYS_MAX
from meterplane.metering.usage_query import UsageQuery, parse

Kind = Literal["events", "usage", "focus"]
Format = Literal["csv", "parquet"]
KINDS: dict[Kind, str] = {
    "events": "Usage events",
    "usage": "Sums of usage",
    "focus": "FOCUS cost and usage",
}
FORMATS: dict[Format, str] = {"csv": "CSV", "parquet": "Parquet"}
NOT_OURS = ("order", "limit")  # an export has one order and all rows


class ExportQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """One export: usage in [start, end), UTC. As it is stored, it is not checked again."""

    kind: Kind
    format: Format
    start: datetime
    end: datetime
    filters: dict[str, tuple[str, ...]] = {}
    group_by: tuple[str, ...] = ()
    bucket: Unit | None = None
    tz: str = "UTC"

    @property
    def first_day(self) -> date:
        return self.start.date()

    @property
    def last_day(self) -> date:
        """The last day an event of the interval can be of."""
        return (self.end - timedelta(microseconds=1)).date()

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1

    def is_whole(self, day: str) -> bool:
        """True if all of a day, as `2026-11-29`, is of the interval."""
        midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return self.start <= midnight and midnight + timedelta(days=1) <= self.end

    def days_before(self, place: Sequence[Any] | None) -> int:
        """How many of its days are written when the next page begins at `place`."""
        if place is None:
            return self.days
        day = date.fromisoformat(str(place[0])[:10])
        return min(max(0, (day - self.first_day).days), self.days)

    def sums(self, start: datetime, end: datetime) -> UsageQuery:
        """The query whose sums it is, over a part of its interval."""
        return UsageQuery(
            start=start,
            end=end,
            bucket=self.bucket,
            zone=ZoneInfo(self.tz),
            group_by=self.group_by,
            filters=self.filters,
        )

    def as_json(self) -> dict[str, Any]:
        """How it is stored."""
        stored: dict[str, Any] = msgspec.to_builtins(self)
        return stored


def stored_query(stored: Any) -> ExportQuery:
    """What `as_json` gave."""
    return msgspec.convert(stored, ExportQuery)


def checked(kind: str, file_format: str, params: Mapping[str, Sequence[str]]) -> ExportQuery:
    """What was asked for, with the parameters of a usage query. Raises `CallerError`."""
    asked = parse(params, ignore=NOT_OURS)
    query = ExportQuery(
        kind=cast("Kind", _one_of("kind", kind, get_args(Kind))),
        format=cast("Format", _one_of("format", file_format, get_args(Format))),
        start=asked.start.astimezone(UTC),
        end=asked.end.astimezone(UTC),
        filters={name: tuple(values) for name, values in sorted(asked.filters.items())},
        group_by=asked.group_by,
        bucket=asked.bucket,
        tz=asked.zone.key,
    )
    if query.days > DAYS_MAX:
        raise CallerError(
            "period_too_long", f"An export spans at most {DAYS_MAX} days.", field="from"
        )
    if query.kind == "focus" and query.bucket not in (None, "hour", "day"):
        raise CallerError("export_invalid", "FOCUS rows are by hour or by day.", field="bucket")
    if query.kind == "focus" and query.tz != "UTC":
        raise CallerError("export_invalid", "FOCUS periods are in UTC; leave tz out.", field="tz")
    return query


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise CallerError(
            "export_invalid", f"{name} is one of {', '.join(known)}; not {value[:40]!r}.",
            field=name,
        )  # fmt: skip
    return value
