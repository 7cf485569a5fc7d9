"""Exports as a test makes them: asked for, worked to their end here, and read back."""

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pyarrow.parquet as pq

from meterplane.kernel import clock
from meterplane.metering.exports import content
from meterplane.metering.exports.advance import step
from meterplane.metering.exports.query import checked
from meterplane.metering.exports.request import find_export, request_export
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import Export
from tests.metering.segments import message


def take_in(frames) -> None:
    """Through the real ingest."""
    for first in range(0, len(frames), 1_000):
        ingest_segment(message(frames[first : first + 1_000]))


def asked(tenant_id: UUID | None, kind="events", file_format="csv", days=5, **params) -> Export:
    """An export of the last days, up to the end of tomorrow."""
    end = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
    period = {"from": [(end - timedelta(days=days)).isoformat()], "to": [end.isoformat()]}
    given = {name: [value] for name, value in params.items()}
    query = checked(kind, file_format, period | given)
    return request_export(tenant_id=tenant_id, query=query, requested_by="a test")


def worked(export: Export) -> Export:
    """Every step there is, here."""
    while step(export.id):
        pass
    return find_export(export.tenant_id, export.id)


def content_of(export: Export) -> bytes:
    with content.opened(export.id) as source:
        return source.read()


def rows_of(export: Export) -> list[dict[str, object]]:
    """The rows of the file, typed as Parquet has them or as CSV's text."""
    data = content_of(export)
    if export.format == "parquet":
        return pq.read_table(io.BytesIO(data)).to_pylist()
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def as_text(value: object) -> str:
    """A Parquet value as CSV has it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Decimal():
            text = f"{value:f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
        case _:
            return str(value)
