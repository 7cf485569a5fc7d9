"""What time does to batches, and doorbells for those nobody works on."""

from uuid import UUID

from meterplane.batches import doorbell
from meterplane.batches.limits import QUIET_FOR, SWEEP_MAX
from meterplane.batches.models import Batch
from meterplane.batches.store import purge_leftovers
from meterplane.kernel import clock
from tenants.scoping import system_scope


def sweep() -> None:
    """End what is past its window, ring for what lost its doorbell, let go of expired files."""
    for tenant_id, batch_id in [*_expired(), *_quiet()]:
        doorbell.ring(tenant_id, batch_id)
    purge_leftovers()


def _expired() -> list[tuple[UUID, UUID]]:
    """Batches past their window give out no new line from here on."""
    now = clock.now()
    with system_scope("the sweep looks for batches past their window"):
        late = Batch.objects.filter(expires_at__lte=now)
        late.filter(status=Batch.Status.VALIDATING).update(
            status=Batch.Status.EXPIRED, ended_at=now
        )
        rows = late.filter(status=Batch.Status.IN_PROGRESS).select_for_update(skip_locked=True)
        found = list(rows.values_list("tenant_id", "id")[:SWEEP_MAX])
        Batch.objects.filter(
            id__in=[batch_id for _, batch_id in found], status=Batch.Status.IN_PROGRESS
        ).update(status=Batch.Status.EXPIRING, finalizing_at=now)
    return found


def _quiet() -> list[tuple[UUID, UUID]]:
    """Open batches nobody has worked on for a while; each is rung for once in that while."""
    now = clock.now()
    with system_scope("the sweep looks for batches nobody works on"):
        rows = Batch.objects.filter(status__in=Batch.OPEN, worked_at__lte=now - QUIET_FOR)
        found = list(
            rows.select_for_update(skip_locked=True)
            .order_by("worked_at")
            .values_list("tenant_id", "id")[:SWEEP_MAX]
        )
        Batch.objects.filter(id__in=[batch_id for _, batch_id in found]).update(worked_at=now)
    return found
