"""Pages as CSV: RFC 4180, UTF-8, CR LF, one header line. Cut between pages, it is the same bytes.

Text that a spreadsheet would run as a formula gets an apostrophe in front: people choose the names
of their keys, and callers their tags. Amounts are plain decimals without trailing zeros, instants
ISO 8601 in UTC, null is empty.
"""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def header(schema: pa.Schema) -> bytes:
    """The first line."""
    return _lines([schema.names])


def body(rows: pa.RecordBatch, timespec: str) -> bytes:
    """The lines of one page."""
    columns = [[_cell(value, timespec) for value in column.to_pylist()] for column in rows.columns]
    return _lines(zip(*columns, strict=True))


def literal(text: str) -> str:
    """Text as a spreadsheet shows it, whatever it begins with."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any, timespec: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return literal(value)
        case Decimal():
            text = format(value, "f")
            return text.rstrip("0").rstrip(".") if "." in text else text
        case datetime():
            instant = value.astimezone(UTC).replace(tzinfo=None)
            return f"{instant.isoformat(timespec=timespec)}Z"
        case _:
            return str(value)
