"""Write an export, a part at a time, so that whoever is killed repeats one part at most.

A part is a stretch of rows in a file of its own, with its digest in `export_part`. It is written
first and recorded after, with the place where the next begins, in one transaction; what was written
and not recorded is written again. When no part is left the file is put together of them, and is the
same, byte for byte, as if nobody had been killed: pages, their order, and row groups do not depend
on where parts ended.

One worker at a time: a lock that ends with its transaction, so with its worker. Cancelling does not
wait for it: what is written then counts for nothing.

Snapshot. Rows name the instant their transaction began, and that is before they can be seen. So the
first part waits until no transaction of our workers is open that began before `ingested_until`.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO
from uuid import UUID

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.failpoints import failpoint
from meterplane.metering.exports import content, write_csv, write_parquet
from meterplane.metering.exports.doorbell import ring
from meterplane.metering.exports.limits import (
    AWAY_S,
    BLOCK_BYTES,
    PART_DAYS,
    PART_ROWS,
    SLICE_S,
)
from meterplane.metering.exports.query import ExportQuery, stored_query
from meterplane.metering.exports.request import door_of, life
from meterplane.metering.exports.source import Place, Source, source_of
from meterplane.metering.models import Export, ExportPart
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

_ALL_WRITTEN: Place = []  # where no page begins


def advance(export_id: UUID) -> None:
    """Bring one export as far as it goes now, and ring if that is not its end."""
    deadline = time.monotonic() + SLICE_S
    while step(export_id):
        if time.monotonic() > deadline:
            ring(export_id)
            return


def step(export_id: UUID) -> bool:
    """Write one part, or put the file together. True if there is more to do now."""
    with system_scope("a worker looks for what to export"):
        row = Export.objects.filter(id=export_id, state__in=Export.OPEN).first()
    if row is None:
        return False
    if row.parts == 0 and _writers_since_before(row):
        ring(export_id, AWAY_S)
        return False
    with system_scope("a worker writes an export"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"export {export_id}"]
        )
        if not cursor.fetchone()[0]:
            return False  # somebody else is at it
        row = Export.objects.filter(id=export_id, state__in=Export.OPEN).first()
        if row is None:
            return False
        try:
            more = _write_part(row) if row.place != _ALL_WRITTEN else _put_together(row)
        except CallerError as refused:
            more = _end(row, state=Export.State.FAILED, error=refused.message)
    failpoint("export.step.after_commit")
    if not more:
        content.remove(export_id, parts_only=True)
    return more


def _writers_since_before(row: Export) -> bool:
    """Whether a transaction is open that may still commit usage of before the export began."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND usename = current_user AND pid <> pg_backend_pid() AND xact_start <= %s)",
            [row.ingested_until],
        )
        return bool(cursor.fetchone()[0])


@dataclass(slots=True)
class _Part:
    """What a part holds so far. `place`: where the next begins."""

    place: Place | None
    rows: int = 0
    cost_nano: dict[str, int] = field(default_factory=dict)

    def batches(self, source: Source, query: ExportQuery) -> Iterator[pa.RecordBatch]:
        """Pages from `place` on, until the part is full."""
        begun = query.days_before(self.place)
        while self.place is not None:
            page = source.page(self.place)
            self.place = page.next
            self.rows += page.rows.num_rows
            for currency, nano in page.cost_nano.items():
                self.cost_nano[currency] = self.cost_nano.get(currency, 0) + nano
            yield page.rows
            if self.rows >= PART_ROWS or query.days_before(self.place) - begun >= PART_DAYS:
                return


def _write_part(row: Export) -> bool:
    query = stored_query(row.query)
    number = row.parts + 1
    with door_of(row.tenant_id):
        source = source_of(query, row.ingested_until)
        part = _Part(row.place or source.first)
        batches = part.batches(source, query)

        def write(target: IO[bytes]) -> None:
            if query.format == "parquet":
                write_parquet.write(target, source.schema, batches)
                return
            for batch in batches:
                target.write(write_csv.body(batch, source.timespec))

        digest, size_bytes = content.store(row.id, number, write)
    failpoint("export.part.after_write")
    place = _ALL_WRITTEN if part.place is None else part.place
    sums = {
        currency: row.sums.get(currency, 0) + part.cost_nano.get(currency, 0)
        for currency in sorted(row.sums.keys() | part.cost_nano.keys())
    }
    kept = Export.objects.filter(id=row.id, state__in=Export.OPEN).update(
        state=Export.State.RUNNING,
        place=place,
        parts=number,
        rows=row.rows + part.rows,
        bytes=row.bytes + size_bytes,
        days_done=query.days_before(part.place),
        sums=sums,
        worked_at=clock.now(),
    )
    if not kept:  # cancelled meanwhile
        return False
    ExportPart.objects.create(
        export_id=row.id,
        number=number,
        tenant_id=row.tenant_id,
        rows=part.rows,
        bytes=size_bytes,
        sha256=digest,
    )
    failpoint("export.part.before_commit")
    return True


def _put_together(row: Export) -> bool:
    parts = list(ExportPart.objects.filter(export_id=row.id).order_by("number"))
    damaged = [part for part in parts if content.digest_of(row.id, part.number) != part.sha256]
    if damaged:
        log.error("%s: %s is not as it was written; all is written anew", row, damaged[0])
        ExportPart.objects.filter(export_id=row.id).delete()
        Export.objects.filter(id=row.id, state__in=Export.OPEN).update(
            place=None, parts=0, rows=0, bytes=0, days_done=0, sums={}
        )
        return True
    query = stored_query(row.query)
    with door_of(row.tenant_id):
        schema = source_of(query, row.ingested_until).schema

    def write(target: IO[bytes]) -> None:
        if query.format == "parquet":
            write_parquet.write(target, schema, _batches_of(parts))
            return
        target.write(write_csv.header(schema))
        for part in parts:
            with content.opened(part.export_id, part.number) as source:
                shutil.copyfileobj(source, target, BLOCK_BYTES)

    digest, size_bytes = content.store(row.id, 0, write)
    failpoint("export.file.after_write")
    return _end(row, state=Export.State.DONE, sha256=digest, bytes=size_bytes)


def _batches_of(parts: list[ExportPart]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with content.opened(part.export_id, part.number) as source:
            yield from pq.ParquetFile(source).iter_batches()


def _end(row: Export, **how: object) -> bool:
    """False: nothing is left to do."""
    now = clock.now()
    Export.objects.filter(id=row.id, state__in=Export.OPEN).update(
        **how, finished_at=now, expires_at=now + life(), worked_at=now
    )
    return False
