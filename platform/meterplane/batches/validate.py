"""Read a batch's file: it becomes lines and the batch is in progress, or it fails with its errors.

Guarantees: all lines or none. Each line gets the request id that makes it one usage event, however
often a crash has it run again.
"""

from uuid import UUID

from django.db import connection

from meterplane.batches import content, exclusive, lines
from meterplane.batches.limits import INSERT_LINES
from meterplane.batches.models import Batch
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope

_INSERT = """
INSERT INTO batch_line (tenant_id, batch_id, id, request_id, line_no, custom_id, start_byte,
                        size_bytes, status, sent, attempts)
SELECT %s, %s, l.id, l.request_id, l.line_no, l.custom_id, l.start_byte, l.size_bytes,
       'waiting', false, 0
  FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::bigint[], %s::int[])
    AS l(id, request_id, line_no, custom_id, start_byte, size_bytes)
"""


def validate(tenant_id: UUID, batch_id: UUID) -> None:
    """Validate a batch that waits for it; anything else is left alone."""
    with tenant_scope(tenant_id):
        if not exclusive.taken(batch_id):
            return
        batch = _waiting(batch_id)
        if batch is None:
            return
        found = _read(batch)
        # The file was read without the row's lock: the batch may have been cancelled meanwhile.
        if _waiting(batch_id, lock=True) is None:
            return
        now = clock.now()
        if found.errors:
            batch.status, batch.errors, batch.ended_at = Batch.Status.FAILED, found.errors, now
            batch.save(update_fields=["status", "errors", "ended_at"])
            return
        _insert(batch, found.lines)
        batch.status, batch.in_progress_at = Batch.Status.IN_PROGRESS, now
        batch.total, batch.model = len(found.lines), found.model
        batch.save(update_fields=["status", "in_progress_at", "total", "model"])


def _waiting(batch_id: UUID, *, lock: bool = False) -> Batch | None:
    rows = Batch.objects.filter(
        id=batch_id, status=Batch.Status.VALIDATING, expires_at__gt=clock.now()
    )
    return (rows.select_for_update(no_key=True) if lock else rows).first()


def _read(batch: Batch) -> lines.Input:
    try:
        with content.opened(batch.tenant_id, batch.input_file_id) as file:
            return lines.read(file, batch.endpoint)
    except FileNotFoundError:
        lost = {
            "code": "file_unreadable",
            "line": None,
            "message": "The input file cannot be read. Upload it again.",
            "param": "input_file_id",
        }
        return lines.Input(errors=[lost])


def _insert(batch: Batch, found: list[lines.InputLine]) -> None:
    with connection.cursor() as cursor:
        for first in range(0, len(found), INSERT_LINES):
            part = found[first : first + INSERT_LINES]
            cursor.execute(
                _INSERT,
                [
                    batch.tenant_id,
                    batch.id,
                    [uuid7() for _ in part],
                    [uuid7() for _ in part],
                    [line.line_no for line in part],
                    [line.custom_id for line in part],
                    [line.start_byte for line in part],
                    [line.size_bytes for line in part],
                ],
            )
