"""Events against roll-ups: the hour's, its day's, its month's, and those by tag.

Each comparison is one statement, and so one snapshot. Hours are held to events; the day is held to
its hours, whose own turn each of them has; the month to its days, with the last hour of each of
them; tags to events. Every sum of every row is compared, so that what was added twice, left out, or
moved to another key is told alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from meterplane.metering.reading import events_in, read
from meterplane.metering.reconcile.spread import HOUR

DIFFERENCES_TOLD_MAX = 3
# Not taken from ingest: what holds it to account does not ask it what to look at. A test holds that
# every column of the roll-ups is here.
SUMMED_BY = (
    "project_id, key_id, model, surface, status, price_version_id, currency, service_tier,"
    " deployment, priority, region, gpu_type"
)
SUMS = (
    "events", "requests", "tokens_in", "tokens_out", "rows", "bytes_in", "bytes_out", "cost_nano",
    "total_ms_sum", "tensor_bytes_in", "tensor_bytes_out", "compute_us_sum", "first_byte_ms_sum",
)  # fmt: skip
# What an event adds to each sum.
_OF_EVENT = {
    "events": "count(*)",
    "total_ms_sum": "sum(total_ms)",
    "compute_us_sum": "sum(compute_us)",
    "first_byte_ms_sum": "sum(first_byte_ms)",
}
MONTH_KEY = "model, service_tier, price_version_id, currency, priority, region, gpu_type"
MONTH_SUMS = ("events", "requests", "tokens_in", "tokens_out", "cost_nano")
TAG_SUMS = ("events", "requests", "tokens_in", "tokens_out", "cost_nano", "total_ms_sum")
TAG_KEY = "tag, value, project_id, key_id, model, status, currency"


def _summed(names: Iterable[str]) -> str:
    return ", ".join(f"{_OF_EVENT.get(name, f'sum({name})')} AS {name}" for name in names)


def _differing(left: str, right: str, key: str, sums: Iterable[str], told: str = "status") -> str:
    """Rows of which the two sides do not say the same, with one more column of their key `told`;
    the right one's difference in each sum."""
    differences = ", ".join(
        f"COALESCE(r.{name}, 0)::numeric - COALESCE(l.{name}, 0)::numeric" for name in sums
    )
    return f"""
WITH l AS ({left}), r AS ({right})
SELECT model, tenant_id, {told}, ARRAY[{differences}]
  FROM l FULL JOIN r USING (tenant_id, {key})
 WHERE ({", ".join(f"l.{name}::numeric" for name in sums)})
       IS DISTINCT FROM ({", ".join(f"r.{name}::numeric" for name in sums)})
 ORDER BY model, tenant_id, {told}
"""  # noqa: S608  column names are the constants above


_HOUR = _differing(
    f"SELECT tenant_id, {SUMMED_BY}, {_summed(SUMS)} FROM usage_event WHERE {{events}}"  # noqa: S608
    f" GROUP BY tenant_id, {SUMMED_BY}",
    f"SELECT tenant_id, {SUMMED_BY}, {', '.join(SUMS)} FROM usage_hour WHERE hour = %(hour)s",  # noqa: S608
    SUMMED_BY,
    SUMS,
)
_DAY = _differing(
    f"SELECT tenant_id, {SUMMED_BY}, {', '.join(f'sum({n}) AS {n}' for n in SUMS)} FROM usage_hour"  # noqa: S608
    f" WHERE hour >= %(day_start)s AND hour < %(day_end)s GROUP BY tenant_id, {SUMMED_BY}",
    f"SELECT tenant_id, {SUMMED_BY}, {', '.join(SUMS)} FROM usage_day WHERE day = %(day)s",  # noqa: S608
    SUMMED_BY,
    SUMS,
)
# A row of a month is left there when nothing is left in it.
_MONTH = _differing(
    f"SELECT tenant_id, {MONTH_KEY}, {', '.join(f'sum({n}) AS {n}' for n in MONTH_SUMS)}"  # noqa: S608
    " FROM usage_day WHERE day >= %(month)s AND day < %(month_end)s"
    f" GROUP BY tenant_id, {MONTH_KEY}",
    f"SELECT tenant_id, {MONTH_KEY}, {', '.join(MONTH_SUMS)} FROM usage_month"  # noqa: S608
    f" WHERE month = %(month)s AND ({', '.join(MONTH_SUMS)}) <> (0, 0, 0, 0, 0)",
    MONTH_KEY,
    MONTH_SUMS,
    told="service_tier",
)
_TAGS = _differing(
    f"SELECT tenant_id, t.key AS tag, t.value, project_id, key_id, model, status, currency,"  # noqa: S608
    f" {_summed(TAG_SUMS)} FROM usage_event, jsonb_each_text(tags) t WHERE {{events}}"
    " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
    f"SELECT tenant_id, {TAG_KEY}, {', '.join(TAG_SUMS)} FROM usage_tag_hour"  # noqa: S608
    " WHERE hour = %(hour)s",
    TAG_KEY,
    TAG_SUMS,
)
_EVENTS_SUMMED = "SELECT model, sum(events) FROM usage_hour WHERE hour = %(hour)s GROUP BY model"


@dataclass(frozen=True, slots=True)
class Sums:
    """Events that `usage_hour` counts by model, and by model what differs, in sentences."""

    events: Mapping[str, int]
    differences: Mapping[str, list[str]] = field(default_factory=dict)


def compare_sums(hour: datetime) -> Sums:
    """Of one hour, of the day it is in, and of the month where it ends the day. Needs the system's
    door."""
    inside, parameters = events_in(hour, hour + HOUR, "hour")
    day = hour.astimezone(UTC).replace(hour=0)
    day_end = day + timedelta(days=1)
    month = day.date().replace(day=1)
    parameters |= {
        "hour": hour,
        "day": day.date(),
        "day_start": day,
        "day_end": day_end,
        "month": month,
        "month_end": (month + timedelta(days=32)).replace(day=1),
    }
    found: dict[str, list[str]] = defaultdict(list)
    compared: list[tuple[str, str, Sequence[str]]] = [
        ("usage_hour", _HOUR.replace("{events}", inside), SUMS),
        ("usage_day", _DAY, SUMS),
        ("usage_tag_hour", _TAGS.replace("{events}", inside), TAG_SUMS),
    ]
    if hour + HOUR == day_end:
        compared.append(("usage_month", _MONTH, MONTH_SUMS))
    for table, statement, sums in compared:
        _tell(found, table, sums, read(statement, parameters))
    counted = {model: int(events) for model, events in read(_EVENTS_SUMMED, parameters)}
    return Sums(counted, dict(found))


def _tell(
    found: dict[str, list[str]], table: str, sums: Iterable[str], rows: list[tuple[Any, ...]]
) -> None:
    told: dict[str, int] = defaultdict(int)
    for model, tenant_id, kind, differences in rows:
        told[model] += 1
        if told[model] > DIFFERENCES_TOLD_MAX:
            continue
        said = ", ".join(
            f"{name} {int(by):+,}" for name, by in zip(sums, differences, strict=True) if by
        )
        found[model].append(f"{table} of organisation {tenant_id}, {kind}: {said or 'no row'}")
    for model, rows_count in told.items():
        if rows_count > DIFFERENCES_TOLD_MAX:
            found[model].append(f"{table}: {rows_count - DIFFERENCES_TOLD_MAX} more rows differ")
