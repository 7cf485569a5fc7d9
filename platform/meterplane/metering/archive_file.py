"""One day of `usage_event` as a Parquet file that any tool reads: written whole or not at all.

Guarantees: the file is under its name only when all of it is on the disk. Identifiers are texts,
amounts integers, tags JSON. Knows nothing of PostgreSQL but the order of the columns.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

_TEXT, _INSTANT = pa.string(), pa.timestamp("us", tz="UTC")
_TYPES: dict[str, pa.DataType] = {
    "tenant_id": _TEXT, "event_day": pa.date32(), "request_id": _TEXT, "event_at": _INSTANT,
    "project_id": _TEXT, "key_id": _TEXT, "model": _TEXT, "surface": _TEXT, "stream": pa.bool_(),
    "status": _TEXT, "http_status": pa.int32(), "tokens_in": pa.int64(), "tokens_out": pa.int64(),
    "requests": pa.int32(), "rows": pa.int64(), "bytes_in": pa.int64(), "bytes_out": pa.int64(),
    "provenance": _TEXT, "currency": _TEXT, "price_version_id": _TEXT, "cost_nano": pa.int64(),
    "reserved_nano": pa.int64(), "settled_at": _INSTANT, "first_byte_ms": pa.int64(),
    "total_ms": pa.int64(), "server": _TEXT, "segment_id": _TEXT, "ingested_at": _INSTANT,
    "service_tier": _TEXT, "requested_model": _TEXT, "deployment": _TEXT,
    "tensor_bytes_in": pa.int64(), "tensor_bytes_out": pa.int64(), "queue_us": pa.int64(),
    "compute_us": pa.int64(), "retries": pa.int32(), "trace_id": _TEXT, "epoch": _TEXT,
    "admitted_at": _INSTANT, "tokens_out_stop": pa.int64(), "tags": _TEXT,
    "priority": _TEXT, "region": _TEXT, "gpu_type": _TEXT,
}  # fmt: skip
# How each is selected: what the driver would make an object of is asked for as text.
COLUMNS = {
    name: "::text" if (name.endswith("_id") and name != "trace_id") or name == "tags" else ""
    for name in _TYPES
}
# What a file from before a column says of it, as the column's default does in the table.
_BEFORE = {"priority": "normal", "region": "", "gpu_type": ""}
_SCHEMA = pa.schema(list(_TYPES.items()))


@dataclass(frozen=True, slots=True)
class Content:
    """What a day holds: `costs` is nano by currency as JSON, `checksum` over ids and costs."""

    events: int
    costs: str
    checksum: int

    @classmethod
    def of(cls, events: int, costs: str | dict[str, str], checksum: Any) -> "Content":
        """From what PostgreSQL or a file says, in one spelling."""
        by_currency = msgspec.json.decode(costs) if isinstance(costs, str) else costs
        ordered = {name: str(by_currency[name]) for name in sorted(by_currency)}
        return cls(int(events), msgspec.json.encode(ordered).decode(), int(checksum))


def write_file(path: Path, batches: Iterable[list[tuple[Any, ...]]]) -> None:
    """Write rows of `COLUMNS` to a file that is there, whole and durable, when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")  # of whoever was killed: written over
    with pq.ParquetWriter(unfinished, _SCHEMA, compression="zstd") as writer:
        for batch in batches:
            columns = zip(zip(*batch, strict=True), _SCHEMA.types, strict=True)
            arrays = [pa.array(values, of) for values, of in columns]
            writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    _sync(unfinished)
    unfinished.rename(path)
    _sync(path.parent)


def content_of(path: Path) -> Content:
    """What a file holds, read back from it."""
    costs: Counter[str] = Counter()
    events = checksum = 0
    for batch in pq.ParquetFile(path).iter_batches(columns=["request_id", "cost_nano", "currency"]):
        ids, amounts, currencies = (column.to_pylist() for column in batch.columns)
        events += len(ids)
        for request_id, cost_nano, currency in zip(ids, amounts, currencies, strict=True):
            costs[currency] += cost_nano
            told = hashlib.md5(f"{request_id}:{cost_nano}".encode(), usedforsecurity=False)
            checksum += int(told.hexdigest()[:15], 16)
    return Content.of(events, {name: str(amount) for name, amount in costs.items()}, checksum)


def rows_of(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a file, as `COLUMNS` orders them."""
    for batch in pq.ParquetFile(path).iter_batches():
        columns = [
            batch[name].to_pylist()
            if name not in _BEFORE or name in batch.schema.names
            else [_BEFORE[name]] * batch.num_rows
            for name in COLUMNS
        ]
        yield from zip(*columns, strict=True)


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
