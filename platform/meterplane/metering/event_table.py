"""Usage events as a typed table: their columns outside of PostgreSQL, and how rows get there.

Guarantees: every column of `usage_event` has its place and no value is rounded. Amounts are
decimals of the currency with nine places, which is nano exactly; ids are text; `tags` is JSON with
sorted keys. Knows nothing of files: exports write these batches as they need. The archive keeps the
table's own types (`archive_file`), for it is what a day comes back from.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]

MONEY = pa.decimal128(38, 9)
INSTANT = pa.timestamp("ms", tz="UTC")
PRECISE_INSTANT = pa.timestamp("us", tz="UTC")  # what PostgreSQL's clock says

# The column in the table, the column outside, its type. In the order of `usage_event`.
_COLUMNS: tuple[tuple[str, str, pa.DataType], ...] = (
    ("tenant_id", "tenant_id", pa.string()),
    ("event_day", "event_day", pa.date32()),
    ("request_id", "request_id", pa.string()),
    ("event_at", "event_at", INSTANT),
    ("project_id", "project_id", pa.string()),
    ("key_id", "key_id", pa.string()),
    ("model", "model", pa.string()),
    ("surface", "surface", pa.string()),
    ("stream", "stream", pa.bool_()),
    ("status", "status", pa.string()),
    ("http_status", "http_status", pa.int32()),
    ("tokens_in", "tokens_in", pa.int64()),
    ("tokens_out", "tokens_out", pa.int64()),
    ("requests", "requests", pa.int32()),
    ("rows", "rows", pa.int64()),
    ("bytes_in", "bytes_in", pa.int64()),
    ("bytes_out", "bytes_out", pa.int64()),
    ("provenance", "provenance", pa.string()),
    ("currency", "currency", pa.string()),
    ("price_version_id", "price_version_id", pa.string()),
    ("cost_nano", "cost", MONEY),
    ("reserved_nano", "reserved", MONEY),
    ("settled_at", "settled_at", INSTANT),
    ("first_byte_ms", "first_byte_ms", pa.int64()),
    ("total_ms", "total_ms", pa.int64()),
    ("server", "server", pa.string()),
    ("service_tier", "service_tier", pa.string()),
    ("requested_model", "requested_model", pa.string()),
    ("deployment", "deployment", pa.string()),
    ("tensor_bytes_in", "tensor_bytes_in", pa.int64()),
    ("tensor_bytes_out", "tensor_bytes_out", pa.int64()),
    ("queue_us", "queue_us", pa.int64()),
    ("compute_us", "compute_us", pa.int64()),
    ("retries", "retries", pa.int32()),
    ("trace_id", "trace_id", pa.string()),
    ("epoch", "epoch", pa.string()),
    ("admitted_at", "admitted_at", INSTANT),
    ("tokens_out_stop", "tokens_out_stop", pa.int64()),
    ("tags", "tags", pa.string()),
    ("priority", "priority", pa.string()),
    ("region", "region", pa.string()),
    ("gpu_type", "gpu_type", pa.string()),
    ("segment_id", "segment_id", pa.string()),
    ("ingested_at", "ingested_at", PRECISE_INSTANT),
)
EVENT_COLUMNS = tuple(stored for stored, _, _ in _COLUMNS)
_NAMES = {stored: name for stored, name, _ in _COLUMNS}
_TYPES = {stored: type_ for stored, _, type_ in _COLUMNS}


def event_schema(columns: Sequence[str] = EVENT_COLUMNS) -> pa.Schema:
    """The schema of these columns of `usage_event`, all of them by default."""
    return pa.schema([(_NAMES[column], _TYPES[column]) for column in columns])


def event_batch(
    rows: Sequence[Sequence[Any]], columns: Sequence[str] = EVENT_COLUMNS
) -> pa.RecordBatch:
    """Rows as psycopg reads them, each with `columns` in this order, as one typed batch."""
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    arrays = [
        pa.array([_outside(column, each) for each in column_values], _TYPES[column])
        for column, column_values in zip(columns, values, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=event_schema(columns))


def money(amount_nano: int) -> Decimal:
    """Nano as an exact amount of the currency."""
    return Decimal(amount_nano).scaleb(-9)


def tags_text(tags: Mapping[str, str] | str) -> str:
    """Tags as JSON with sorted keys. psycopg gives jsonb as text or as an object."""
    known = msgspec.json.decode(tags) if isinstance(tags, str) else dict(tags)
    return msgspec.json.encode(known, order="sorted").decode()


def _outside(column: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | datetime | date):
        return value.astimezone(UTC) if isinstance(value, datetime) else value
    if column in ("cost_nano", "reserved_nano"):
        return money(value)
    if column == "tags":
        return tags_text(value)
    return value if isinstance(value, int | str) else str(value)
