"""Sums of usage as pages: the table of `usage_table`, a day of its zone at a time.

The sums are those there are when a page is read: hours and days do not know when each of their
events was taken in, so an export of a period that is not over may hold usage of while it ran. What
is written once stays. Without a bucket there is one page, and at most `ROWS_MAX` rows.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa  # type: ignore[import-untyped]

from meterplane.kernel.errors import CallerError
from meterplane.metering.event_table import INSTANT, MONEY, money
from meterplane.metering.exports.query import ExportQuery
from meterplane.metering.exports.source import Page, Place, Source
from meterplane.metering.usage_query import ROWS_MAX
from meterplane.metering.usage_table import UsageTable, run

_TYPES = {"instant": INSTANT, "text": pa.string(), "integer": pa.int64(), "nano": MONEY}


def sums_source(query: ExportQuery, ingested_until: datetime) -> Source:
    """Rows of sums, by bucket where there is one. `ingested_until` cannot bound sums."""
    del ingested_until
    whole = UsageTable(query.sums(query.start, query.end), (), (), (), truncated=False)
    columns = whole.columns
    schema = pa.schema([(column.name, _TYPES[column.kind]) for column in columns])

    def page(place: Place) -> Page:
        start = datetime.fromisoformat(place[0])
        end = query.end if query.bucket is None else min(query.end, _next_cut(query, start))
        table = run(query.sums(start, end))
        if table.truncated:
            raise CallerError(
                "export_too_wide",
                f"There are more than {ROWS_MAX:,} rows in one part; group by less.",
                field="group_by",
            )
        rows = [table.cells(row) for row in table.rows]
        values: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        arrays = [
            pa.array([money(each) for each in cells] if column.kind == "nano" else list(cells),
                     _TYPES[column.kind])
            for column, cells in zip(columns, values, strict=True)
        ]  # fmt: skip
        cost = {row.currency: row.cost_nano for row in table.totals}
        following = [end.isoformat()] if end < query.end else None
        return Page(pa.RecordBatch.from_arrays(arrays, schema=schema), following, cost)

    return Source(schema, [query.start.isoformat()], page)


def _next_cut(query: ExportQuery, start: datetime) -> datetime:
    """The next midnight of the zone; of months the next first."""
    local = start.astimezone(ZoneInfo(query.tz)).replace(hour=0, minute=0, second=0, microsecond=0)
    if query.bucket == "month":
        following = (local.replace(day=1) + timedelta(days=32)).replace(day=1)
    else:
        following = local + timedelta(days=1)  # of the wall, so that a day may have 23 hours
    return following.astimezone(UTC)
