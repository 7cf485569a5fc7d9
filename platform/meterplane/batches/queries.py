"""Reads of files and batches. Each needs its tenant's door, and shows one project's rows only."""

from uuid import UUID

from django.db.models import QuerySet

from meterplane.batches.models import Batch, StoredFile
from meterplane.kernel import clock
from tenants.callers import Caller


def files_of(caller: Caller) -> "QuerySet[StoredFile]":
    """The files of the caller's project that are there."""
    rows: QuerySet[StoredFile] = StoredFile.objects.filter(
        project_id=caller.project_id, state=StoredFile.State.READY, expires_at__gt=clock.now()
    )
    return rows


def file_of(caller: Caller, file_id: UUID | None, *, lock: bool = False) -> StoredFile | None:
    """One file of the caller's project; locked against deletion when asked."""
    rows = files_of(caller)
    if lock:
        rows = rows.select_for_update()
    return None if file_id is None else rows.filter(id=file_id).first()


def files_page(
    caller: Caller, *, limit: int, after: UUID | None, ascending: bool, purpose: str | None
) -> tuple[list[StoredFile], bool]:
    """A page of files in the order they were made, and whether there are more."""
    rows = files_of(caller)
    if purpose is not None:
        rows = rows.filter(purpose=purpose)
    if after is not None:
        # Ids are UUIDv7: their order is that of creation, and the cursor's own row may be gone.
        rows = rows.filter(id__gt=after) if ascending else rows.filter(id__lt=after)
    found = list(rows.order_by("id" if ascending else "-id")[: limit + 1])
    return found[:limit], len(found) > limit


def batch_of(caller: Caller, batch_id: UUID | None, *, lock: bool = False) -> Batch | None:
    """One batch of the caller's project."""
    rows: QuerySet[Batch] = Batch.objects.filter(project_id=caller.project_id)
    if lock:
        rows = rows.select_for_update(no_key=True)
    return None if batch_id is None else rows.filter(id=batch_id).first()


def batches_page(caller: Caller, *, limit: int, after: UUID | None) -> tuple[list[Batch], bool]:
    """A page of batches, newest first, and whether there are more."""
    rows: QuerySet[Batch] = Batch.objects.filter(project_id=caller.project_id)
    if after is not None:
        rows = rows.filter(id__lt=after)
    found = list(rows.order_by("-id")[: limit + 1])
    return found[:limit], len(found) > limit
