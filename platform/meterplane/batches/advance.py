"""Bring a batch as far as it goes now: validated, run for a slice, or ended."""

from uuid import UUID

from meterplane.batches import doorbell
from meterplane.batches.claim import RUNNING
from meterplane.batches.execute import run_slice
from meterplane.batches.finish import finish
from meterplane.batches.models import Batch
from meterplane.batches.validate import validate
from tenants.scoping import tenant_scope


def advance(tenant_id: UUID, batch_id: UUID) -> None:
    """Look for work of one batch and do it. Rings for itself while lines are left."""
    validate(tenant_id, batch_id)
    pause_s = run_slice(tenant_id, batch_id)
    finish(tenant_id, batch_id)
    with tenant_scope(tenant_id):
        goes_on = Batch.objects.filter(id=batch_id, status__in=RUNNING).exists()
    if goes_on:
        doorbell.ring(tenant_id, batch_id, after_s=pause_s)
