"""The periods a page can show, in a zone. Half-open, whole days except for the running one's end.

A day is the zone's: it may have 23 or 25 hours, and begins where that zone says.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

PeriodName = Literal["today", "7d", "30d", "month", "90d", "12m"]
Bucket = Literal["hour", "day", "month"]

LABELS: dict[PeriodName, str] = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "90d": "90 days",
    "12m": "12 months",
}
# What a period can be drawn by: its usual bucket first, and no more bars than a screen has room
# for.
BUCKETS: dict[PeriodName, tuple[Bucket, ...]] = {
    "today": ("hour",),
    "7d": ("day", "hour"),
    "30d": ("day", "hour"),
    "month": ("day", "hour"),
    "90d": ("day", "month"),
    "12m": ("month", "day"),
}
BUCKET_LABELS: dict[Bucket, str] = {"hour": "Hour", "day": "Day", "month": "Month"}
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Period:
    """[start, end) in UTC, cut into hours, days or months of `zone`."""

    name: PeriodName
    start: datetime
    end: datetime
    bucket: Bucket
    zone: ZoneInfo

    @property
    def described(self) -> str:
        """`24 Nov 2026`, or two days with a dash between."""
        first = self.start.astimezone(self.zone)
        last = (self.end - timedelta(microseconds=1)).astimezone(self.zone)
        shown = f"{last.day} {last:%b %Y}"
        if last.date() == first.date():
            return shown
        year = "" if first.year == last.year else f" {first.year}"
        return f"{first.day} {first:%b}{year} \N{EN DASH} {shown}"

    def buckets(self) -> list[datetime]:
        """The first instants of all buckets in UTC, empty ones included."""
        if self.bucket == "hour":
            hours = -((self.start - self.end) // _HOUR)
            return [self.start + _HOUR * n for n in range(hours)]
        found: list[datetime] = []
        day = self.start.astimezone(self.zone).date()
        while (at := _midnight(day, self.zone)) < self.end:
            if self.bucket == "day":
                found.append(at)
                day += _DAY
            else:
                found.append(_midnight(day.replace(day=1), self.zone))
                day = (day.replace(day=1) + 32 * _DAY).replace(day=1)
        return found

    def label(self, bucket: datetime) -> str:
        """What stands under a bar."""
        local = bucket.astimezone(self.zone)
        if self.bucket == "month":
            return f"{local:%b %Y}"
        day = f"{local.day} {local:%b}"
        if self.bucket == "day":
            return day
        return f"{local:%H:%M}" if self.end - self.start < 2 * _DAY else f"{day} {local:%H:%M}"


def period(name: str, now: datetime, bucket: str = "", zone: ZoneInfo = _UTC) -> Period:
    """The period of that name that contains `now`.

    An unknown name is `7d`, a bucket it is not drawn by its usual one; never an error.
    """
    known: PeriodName = next((each for each in LABELS if each == name), "7d")
    drawn_by = next((each for each in BUCKETS[known] if each == bucket), BUCKETS[known][0])
    today = now.astimezone(zone).date()
    match known:
        case "today":
            first = today
        case "month":
            first = today.replace(day=1)
        case "12m":
            # The month after this one, a year ago: this one is the twelfth.
            first = (today.replace(day=1) + 32 * _DAY).replace(day=1)
            first = first.replace(year=first.year - 1)
        case _:
            first = today - (int(known.removesuffix("d")) - 1) * _DAY
    start, end = _midnight(first, zone), _midnight(today + _DAY, zone)
    return Period(known, start, end, drawn_by, zone)


def before(shown: Period) -> tuple[datetime, datetime]:
    """The interval of the same length right before, to compare with."""
    return shown.start - (shown.end - shown.start), shown.start


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
