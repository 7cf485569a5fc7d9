"""The periods of schedules: hours, days and months of UTC, half-open."""

from datetime import UTC, datetime, timedelta

from meterplane.metering.exports.limits import GRACE


def floor(every: str, instant: datetime) -> datetime:
    """The start of the period an instant is in."""
    at = instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if every == "hourly":
        return at
    midnight = at.replace(hour=0)
    return midnight.replace(day=1) if every == "monthly" else midnight


def next_start(every: str, start: datetime) -> datetime:
    """The end of the period that begins at `start`, which is the start of the next."""
    if every == "hourly":
        return start + timedelta(hours=1)
    if every == "daily":
        return start + timedelta(days=1)
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1)


def due_at(every: str, start: datetime) -> datetime:
    """When the period that begins at `start` is sent: what belongs to it has come in by then."""
    return next_start(every, start) + GRACE


def folder(every: str, start: datetime) -> str:
    """`2026/11`, `2026/11/29` or `2026/11/29/07`."""
    return f"{start.astimezone(UTC):{_FOLDERS[every]}}"


_FOLDERS = {"hourly": "%Y/%m/%d/%H", "daily": "%Y/%m/%d", "monthly": "%Y/%m"}
