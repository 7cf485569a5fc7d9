"""What every read of usage has in common: the open door's condition, and intervals by day."""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection

from meterplane.kernel.ids import minted_at_ms, minted_on
from meterplane.metering.parse import LAST_INSTANT_MS
from tenants.scoping import current_scope

FOR_EVER_DAYS = 36_500  # where nothing is ever archived


def of_door() -> tuple[str, dict[str, Any]]:
    """The condition the open door puts on every row. Row-level security says the same again."""
    tenant_id = current_scope().tenant_id
    if tenant_id is None:
        return "true", {}
    return "tenant_id = %(tenant_id)s", {"tenant_id": tenant_id}


def events_in(start: datetime, end: datetime, name: str) -> tuple[str, dict[str, Any]]:
    """Events in [start, end). `event_day` is the day of `event_at` (checked by the table); naming
    it lets PostgreSQL skip every other day's partition."""
    return (
        f"event_at >= %({name}_start)s AND event_at < %({name}_end)s"
        f" AND event_day BETWEEN %({name}_first_day)s AND %({name}_last_day)s",
        {
            f"{name}_start": start,
            f"{name}_end": end,
            f"{name}_first_day": start.date(),
            f"{name}_last_day": end.date(),
        },
    )


def day_of(request_id: UUID) -> date | None:
    """The day a request's event is kept under; None for what nobody can have minted as an id."""
    if request_id.version != 7 or minted_at_ms(request_id) > LAST_INSTANT_MS:
        return None
    return minted_on(request_id)


def events_kept() -> timedelta:
    """How long a single event can be read after its request came in. Sums of it stay."""
    return timedelta(days=settings.USAGE_RETENTION_DAYS or FOR_EVER_DAYS)


def kept_in_words() -> str:
    """To follow "Requests are kept"."""
    return f"for {events_kept().days} days" if settings.USAGE_RETENTION_DAYS else "for ever"


def read(statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of a statement. Its text is ours; what a caller gave is in `parameters`."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
