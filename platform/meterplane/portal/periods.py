"""The periods a page can show. Half-open, whole UTC days except for the running one's end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

PeriodName = Literal["today", "7d", "30d", "month"]
Bucket = Literal["hour", "day"]

LABELS: dict[PeriodName, str] = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
}
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Period:
    """[start, end), cut into buckets of an hour or a day."""

    name: PeriodName
    start: datetime
    end: datetime
    bucket: Bucket

    @property
    def described(self) -> str:
        """`24 Nov 2026`, or two days with a dash between."""
        last = self.end - timedelta(microseconds=1)
        if last.date() == self.start.date():
            return f"{last.day} {last:%b %Y}"
        return f"{self.start.day} {self.start:%b} \N{EN DASH} {last.day} {last:%b %Y}"

    def buckets(self) -> list[datetime]:
        """The first instants of all buckets, empty ones included."""
        step = _HOUR if self.bucket == "hour" else _DAY
        return [self.start + step * n for n in range(-((self.start - self.end) // step))]

    def label(self, bucket: datetime) -> str:
        """What stands under a bar."""
        return f"{bucket:%H:%M}" if self.bucket == "hour" else f"{bucket.day} {bucket:%b}"


def period(name: str, now: datetime) -> Period:
    """The period of that name that contains `now`; an unknown name is `7d`, never an error."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight + _DAY
    match name:
        case "today":
            return Period("today", midnight, end, "hour")
        case "30d":
            return Period("30d", end - 30 * _DAY, end, "day")
        case "month":
            return Period("month", midnight.replace(day=1), end, "day")
        case _:
            return Period("7d", end - 7 * _DAY, end, "day")


def before(shown: Period) -> tuple[datetime, datetime]:
    """The interval of the same length right before, to compare with."""
    return shown.start - (shown.end - shown.start), shown.start
