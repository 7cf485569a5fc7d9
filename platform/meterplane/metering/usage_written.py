"""A usage table as JSON and as CSV: the same rows and the same names, wherever they are asked for.

Instants carry the offset of the query's zone, amounts are exact decimal texts beside their
currency.
"""

import csv
import io
from dataclasses import replace
from datetime import datetime
from typing import Any

from meterplane.kernel.money import nano_to_text
from meterplane.metering.usage_table import Cell, Column, UsageRow, UsageTable

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def document(table: UsageTable) -> dict[str, Any]:
    """The answer in JSON's types. `totals` are of all rows there are, even of a truncated table."""
    query = table.query
    whole = replace(table, query=replace(query, bucket=None, group_by=()))
    return {
        "from": _instant(query.start.astimezone(query.zone)),
        "to": _instant(query.end.astimezone(query.zone)),
        "bucket": query.bucket,
        "tz": query.zone.key,
        "group_by": list(query.group_by),
        "rows": [row_document(table, row) for row in table.rows],
        "totals": [row_document(whole, row) for row in table.totals],
        "source": list(table.source),
        "truncated": table.truncated,
    }


def row_document(table: UsageTable, row: UsageRow) -> dict[str, Any]:
    """One row by the names of the table's columns."""
    return {
        column.name: _plain(table, column, cell)
        for column, cell in zip(table.columns, table.cells(row), strict=True)
    }


def csv_text(table: UsageTable) -> str:
    """A header and the table's rows, with nothing after them: a reader need not know of totals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = table.columns
    writer.writerow([literal(column.name) for column in columns])
    for row in table.rows:
        cells = (
            _plain(table, column, cell)
            for column, cell in zip(columns, table.cells(row), strict=True)
        )
        writer.writerow([literal(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def literal(cell: str) -> str:
    """Text a spreadsheet must not run as a formula: people choose the names of keys and tags."""
    return f"'{cell}" if cell.startswith(_FORMULAS) else cell


def _plain(table: UsageTable, column: Column, cell: Cell) -> str | int:
    if isinstance(cell, datetime):
        return _instant(cell.astimezone(table.query.zone))
    if column.kind == "nano":
        return nano_to_text(int(cell))
    return cell


def _instant(instant: datetime) -> str:
    text = instant.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
