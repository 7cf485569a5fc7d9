"""Who runs which lines. A line that was claimed is its worker's until the lease ends.

Guarantees: two workers hold no line at once while their leases are renewed. A batch that was
cancelled or has expired gives out only lines that may be at the gateway already: those are ended,
not begun.

Every change of a batch's lines begins with the lock of the batch's row. So the changes of one batch
happen in one order, cannot deadlock, and counts on the row are exact.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Min, Q, QuerySet
from django.db.models.functions import Coalesce

from meterplane.batches.limits import LEASE, PAUSE_S_MAX, PAUSE_S_MIN
from meterplane.batches.models import Batch, BatchLine
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

RUNNING = (Batch.Status.IN_PROGRESS, Batch.Status.CANCELLING, Batch.Status.EXPIRING)


@dataclass(frozen=True, slots=True)
class ClaimedLine:
    """A line to run. `was_sent`: an earlier attempt under this request id may have run."""

    id: UUID
    request_id: UUID
    start_byte: int
    size_bytes: int
    attempts: int
    was_sent: bool


def claim(tenant_id: UUID, batch_id: UUID, count: int) -> list[ClaimedLine]:
    """Up to `count` lines, in the order of the file; none when the batch gives out none now."""
    now = clock.now()
    with tenant_scope(tenant_id):
        batch = locked(batch_id)
        if batch is None or batch.status not in RUNNING:
            return []
        batch.worked_at = now
        if batch.status == Batch.Status.IN_PROGRESS and batch.expires_at <= now:
            batch.status, batch.finalizing_at = Batch.Status.EXPIRING, now
        batch.save(update_fields=["worked_at", "status", "finalizing_at"])
        free = _free(_waiting(batch), now).select_for_update(skip_locked=True)
        rows = list(free.order_by("line_no")[:count])
        BatchLine.objects.filter(id__in=[row.id for row in rows]).update(
            sent=True, lease_until=now + LEASE, not_before=None
        )
    return [
        ClaimedLine(row.id, row.request_id, row.start_byte, row.size_bytes, row.attempts, row.sent)
        for row in rows
    ]


def locked(batch_id: UUID) -> Batch | None:
    """The batch, its row locked, if it has not ended."""
    rows = Batch.objects.filter(id=batch_id, status__in=Batch.OPEN)
    batch: Batch | None = rows.select_for_update(no_key=True).first()
    return batch


def renew(tenant_id: UUID, batch_id: UUID, line_ids: Collection[UUID]) -> None:
    """Hold these lines for another lease."""
    now = clock.now()
    with tenant_scope(tenant_id):
        batch = locked(batch_id)
        if batch is None:
            return
        batch.worked_at = now
        batch.save(update_fields=["worked_at"])
        BatchLine.objects.filter(id__in=line_ids, status=BatchLine.Status.WAITING).update(
            lease_until=now + LEASE
        )


def next_look_s(tenant_id: UUID, batch_id: UUID) -> float:
    """Seconds until a line can be claimed; 0 when one can be now."""
    now = clock.now()
    with tenant_scope(tenant_id):
        batch = Batch.objects.filter(id=batch_id).first()
        if batch is None or batch.status not in RUNNING:
            return 0
        waiting = _waiting(batch)
        if _free(waiting, now).exists():
            return 0
        soonest: datetime | None = waiting.aggregate(
            soonest=Min(Coalesce("not_before", "lease_until"))
        )["soonest"]
    if soonest is None:
        return 0
    return min(max(PAUSE_S_MIN, (soonest - now).total_seconds()), PAUSE_S_MAX)


def _waiting(batch: Batch) -> "QuerySet[BatchLine]":
    """Lines of the batch that are still to be run, now or later."""
    rows: QuerySet[BatchLine] = BatchLine.objects.filter(
        batch_id=batch.id, status=BatchLine.Status.WAITING
    )
    return rows if batch.status == Batch.Status.IN_PROGRESS else rows.filter(sent=True)


def _free(waiting: "QuerySet[BatchLine]", now: datetime) -> "QuerySet[BatchLine]":
    return waiting.filter(
        Q(lease_until__isnull=True) | Q(lease_until__lte=now),
        Q(not_before__isnull=True) | Q(not_before__lte=now),
    )
