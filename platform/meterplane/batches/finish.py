"""Write a batch's result files and end it.

Guarantees: every line is in exactly one of the two files, in the order of the input. The files, the
status and the end of the lines are one transaction; the content written before it stands under ids
fixed at the start, so a crash between is made good by writing the same files again.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO
from uuid import UUID

import msgspec
from django.conf import settings
from django.core.files import File

from meterplane.batches import content, exclusive, identifiers
from meterplane.batches.claim import locked
from meterplane.batches.limits import FETCH_ROWS, UNKNOWN_FATE_FOR
from meterplane.batches.models import Batch, BatchLine, StoredFile
from meterplane.batches.outcome import error_body
from meterplane.batches.record import end_the_rest
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure
from tenants.scoping import tenant_scope

ENDS_AS = {
    Batch.Status.FINALIZING: Batch.Status.COMPLETED,
    Batch.Status.CANCELLING: Batch.Status.CANCELLED,
    Batch.Status.EXPIRING: Batch.Status.EXPIRED,
}
NOT_RUN = {
    Batch.Status.CANCELLING: error_body(
        "batch_cancelled", "The batch was cancelled before this request was run."
    ),
    Batch.Status.EXPIRING: error_body(
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


def finish(tenant_id: UUID, batch_id: UUID) -> None:
    """End the batch if nothing of it is left to wait for."""
    _give_up_unknown(tenant_id, batch_id)
    with tenant_scope(tenant_id), ExitStack() as drafts:
        if not exclusive.taken(batch_id):
            return
        batch = Batch.objects.filter(id=batch_id).first()
        if batch is None or batch.status not in ENDS_AS or _in_flight(batch):
            return
        output, errors = _draft(drafts), _draft(drafts)
        for is_output, line in _results(batch):
            (output if is_output else errors).write(line)
        now = clock.now()
        has_output = _keep(batch, batch.output_file_id, "output", output, now)
        has_errors = _keep(batch, batch.error_file_id, "error", errors, now)
        ensure(locked(batch_id) is not None, "only this transaction ends the batch")
        BatchLine.objects.filter(batch_id=batch_id).delete()
        batch.has_output, batch.has_errors = has_output, has_errors
        batch.status, batch.ended_at = ENDS_AS[Batch.Status(batch.status)], now
        batch.save(update_fields=["has_output", "has_errors", "status", "ended_at"])


def _give_up_unknown(tenant_id: UUID, batch_id: UUID) -> None:
    """A line whose fate has been unknown for long after the batch should have ended is failed."""
    with tenant_scope(tenant_id):
        batch = Batch.objects.filter(id=batch_id).first()
    if batch is None:
        return
    since = {
        Batch.Status.CANCELLING: batch.cancelling_at,
        Batch.Status.EXPIRING: batch.expires_at,
    }.get(Batch.Status(batch.status))
    if since is not None and clock.now() > since + UNKNOWN_FATE_FOR:
        message = "The gateway gave no answer; usage tells whether this request was served."
        end_the_rest(tenant_id, batch_id, error_body("no_answer", message), sent=True)


def _in_flight(batch: Batch) -> bool:
    waiting = BatchLine.objects.filter(batch_id=batch.id, status=BatchLine.Status.WAITING)
    if batch.status == Batch.Status.FINALIZING:
        ensure(not waiting.exists(), "a batch is finalizing when every line has its result")
        return False
    return waiting.filter(sent=True).exists()


def _results(batch: Batch) -> Iterator[tuple[bool, bytes]]:
    """Whether it goes to the output, and the line, of every line of the batch in order."""
    rows = BatchLine.objects.filter(batch_id=batch.id).order_by("line_no")
    for row in rows.iterator(chunk_size=FETCH_ROWS):
        body = NOT_RUN[Batch.Status(batch.status)] if row.body is None else bytes(row.body)
        answered = row.http_status is not None
        response = {
            "status_code": row.http_status,
            "request_id": str(row.request_id),
            "body": msgspec.Raw(body),
        }
        line = {
            "id": identifiers.shown(identifiers.REQUEST, row.id),
            "custom_id": row.custom_id,
            "response": response if answered else None,
            "error": None if answered else msgspec.Raw(body),
        }
        yield row.status == BatchLine.Status.COMPLETED, msgspec.json.encode(line) + b"\n"


def _draft(drafts: ExitStack) -> IO[bytes]:
    """An unnamed file beside the others: gigabytes of results are not for a /tmp in memory."""
    folder = Path(settings.FILES_DIR)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return drafts.enter_context(tempfile.TemporaryFile(dir=folder))


def _keep(batch: Batch, file_id: UUID, kind: str, draft: IO[bytes], now: datetime) -> bool:
    """The draft as a file of the project; nothing when it is empty."""
    size_bytes = draft.tell()
    if size_bytes == 0:
        return False
    draft.seek(0)
    content.write(batch.tenant_id, file_id, File(draft))
    StoredFile.objects.create(
        id=file_id,
        tenant_id=batch.tenant_id,
        project_id=batch.project_id,
        purpose=StoredFile.Purpose.BATCH_OUTPUT,
        state=StoredFile.State.READY,
        filename=f"{batch}_{kind}.jsonl",
        size_bytes=size_bytes,
        created_at=now,
        expires_at=now + timedelta(seconds=batch.output_life_s),
    )
    return True
