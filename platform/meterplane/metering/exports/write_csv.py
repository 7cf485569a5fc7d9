"""Pages as CSV: RFC 4180, UTF-8, CR LF, one header line. Cut between pages, it is the same bytes.

Text that a spreadsheet would run as a formula gets an apostrophe in front: people choose the names
of their keys, and callers their tags. Amounts are plain decimals without trailing zeros, instants
ISO 8601 in UTC, null is empty.
"""

import csv
import io
from decimal import Decimal
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def header(schema: pa.Schema) -> bytes:
    """The first line."""
    return _lines([schema.names])


def body(rows: pa.RecordBatch, timespec: str) -> bytes:
    """The lines of one page."""
    return _lines(zip(*(_cells(column, timespec) for column in rows.columns), strict=True))


def literal(text: str) -> str:
    """Text as a spreadsheet shows it, whatever it begins with."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cells(column: pa.Array, timespec: str) -> list[str]:
    """A column as text. Arrow writes instants: as Python objects they cost the most."""
    if pa.types.is_timestamp(column.type):
        as_told = pa.timestamp("s" if timespec == "seconds" else "ms", tz="UTC")
        column = pc.strftime(column.cast(as_told, safe=False), format="%Y-%m-%dT%H:%M:%SZ")
    values = column.to_pylist()
    if pa.types.is_string(column.type):
        return ["" if value is None else literal(value) for value in values]
    return [_cell(value) for value in values]


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Decimal():
            text = format(value, "f")
            return text.rstrip("0").rstrip(".") if "." in text else text
        case _:
            return str(value)
