"""An export as one answer, from its first byte on, without a file: for what is not too long.

Memory is that of one page. Each page is read in a transaction of its own, so a slow client holds no
connection to PostgreSQL; together they are what was taken in when the answer began, less what was
being taken in just then.
"""

from collections.abc import Iterator
from uuid import UUID

from django.db import connection

from meterplane.metering.exports.query import ExportQuery
from meterplane.metering.exports.request import door_of


def csv_blocks(tenant_id: UUID | None, query: ExportQuery) -> Iterator[bytes]:
    """The CSV, a page at a time. Permission is decided before; the doors are opened here."""
    from meterplane.metering.exports import write_csv  # Arrow only where it is needed
    from meterplane.metering.exports.source import Place, source_of

    with door_of(tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        ingested_until = cursor.fetchone()[0]
        source = source_of(query, ingested_until)
        place: Place | None = source.first
    yield write_csv.header(source.schema)
    while place is not None:
        with door_of(tenant_id):
            page = source.page(place)
        place = page.next
        if page.rows.num_rows:
            yield write_csv.body(page.rows, source.timespec)
