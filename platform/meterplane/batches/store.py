"""Take a file in, delete it, and let go of what has expired.

Guarantees: the row is there before the content and goes after it, so a crash anywhere leaves
nothing on disk that the sweep cannot find. A file that an open batch reads is not deleted.
"""

from datetime import timedelta
from uuid import UUID

from django.core.files import File
from django.db import transaction
from django.db.models import Sum

from meterplane.batches import content, queries, refusals
from meterplane.batches.limits import (
    ARRIVING_FOR,
    BYTES_PER_ORGANISATION_MAX,
    FILE_BYTES_MAX,
    FILES_PER_ORGANISATION_MAX,
    SWEEP_MAX,
)
from meterplane.batches.models import Batch, StoredFile
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.callers import Caller
from tenants.models import Organisation
from tenants.scoping import system_scope, tenant_scope


def store_file(
    caller: Caller, upload: "File[bytes]", *, filename: str, life: timedelta
) -> StoredFile:
    """Keep an uploaded file of purpose `batch`.

    Three steps and two transactions: a content of 200 MB is not written inside one. Raises
    `CallerError` `request_too_large`, `too_many_files`, `storage_full`.
    """
    if upload.size > FILE_BYTES_MAX:
        raise refusals.too_large(FILE_BYTES_MAX)
    now = clock.now()
    with tenant_scope(caller.tenant_id):
        _check_room(caller.tenant_id, upload.size)
        row: StoredFile = StoredFile.objects.create(
            id=uuid7(),
            tenant_id=caller.tenant_id,
            project_id=caller.project_id,
            purpose=StoredFile.Purpose.BATCH,
            state=StoredFile.State.ARRIVING,
            filename=filename,
            size_bytes=upload.size,
            created_at=now,
            expires_at=now + life,
        )
    content.write(row.tenant_id, row.id, upload)
    with tenant_scope(caller.tenant_id):
        row.state = StoredFile.State.READY
        row.save(update_fields=["state"])
    return row


def _check_room(tenant_id: UUID, size_bytes: int) -> None:
    # Locked, so that two uploads do not both take the last room. Foreign keys do not wait for it.
    Organisation.objects.select_for_update(no_key=True).get(id=tenant_id)
    kept = StoredFile.objects.all()
    if kept.count() >= FILES_PER_ORGANISATION_MAX:
        raise CallerError(
            "too_many_files",
            f"This organisation has {FILES_PER_ORGANISATION_MAX:,} files; delete some.",
            status=409,
        )
    used = kept.aggregate(used=Sum("size_bytes"))["used"] or 0
    if used + size_bytes > BYTES_PER_ORGANISATION_MAX:
        raise CallerError(
            "storage_full",
            f"The files of this organisation take {used:,} of {BYTES_PER_ORGANISATION_MAX:,} "
            "bytes; delete some.",
            status=409,
        )


def delete_file(caller: Caller, file_id: UUID | None, shown: str) -> None:
    """Delete a file of the project, content and all. Raises `CallerError` 404 or `file_in_use`."""
    with tenant_scope(caller.tenant_id):
        row = queries.file_of(caller, file_id, lock=True)
        if row is None:
            raise refusals.no_such_file(shown)
        using = Batch.objects.filter(input_file_id=row.id, status__in=Batch.OPEN).first()
        if using is not None:
            raise CallerError(
                "file_in_use",
                f"{using} reads this file. Cancel it first, or wait for its end.",
                status=409,
                field="id",
            )
        row.state = StoredFile.State.LEAVING
        row.save(update_fields=["state"])
        transaction.on_commit(lambda: purge(row.tenant_id, row.id), robust=True)


def purge(tenant_id: UUID, file_id: UUID) -> None:
    """Remove the content of a deleted file, then its row. Any number of times."""
    content.remove(tenant_id, file_id)
    with tenant_scope(tenant_id):
        StoredFile.objects.filter(id=file_id, state=StoredFile.State.LEAVING).delete()


def purge_leftovers() -> int:
    """Let go of expired files, broken uploads and what a deletion did not finish."""
    now = clock.now()
    with system_scope("the sweep looks for files to let go of"):
        read_by_open = Batch.objects.filter(status__in=Batch.OPEN).values("input_file_id")
        expired = StoredFile.objects.filter(expires_at__lte=now).exclude(id__in=read_by_open)
        broken = StoredFile.objects.filter(
            state=StoredFile.State.ARRIVING, created_at__lte=now - ARRIVING_FOR
        )
        for rows in (expired, broken):
            ids = rows.exclude(state=StoredFile.State.LEAVING).values_list("id", flat=True)[
                :SWEEP_MAX
            ]
            StoredFile.objects.filter(id__in=list(ids)).update(state=StoredFile.State.LEAVING)
        leaving = list(
            StoredFile.objects.filter(state=StoredFile.State.LEAVING).values_list(
                "tenant_id", "id"
            )[: 2 * SWEEP_MAX]
        )
    for tenant_id, file_id in leaving:
        purge(tenant_id, file_id)
    return len(leaving)
