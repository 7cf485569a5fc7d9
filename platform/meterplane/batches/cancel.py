"""Cancel a batch: from the moment this returns no line of it begins."""

from functools import partial
from uuid import UUID

from django.db import transaction

from meterplane.batches import doorbell, queries, refusals
from meterplane.batches.models import Batch
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.callers import Caller
from tenants.scoping import tenant_scope


def cancel_batch(caller: Caller, batch_id: UUID | None, shown: str) -> Batch:
    """Run no more lines of a batch; those in flight end. Cancelling twice changes nothing.

    Raises `CallerError` 404, or `batch_not_cancellable` when there is nothing left to cancel.
    """
    with tenant_scope(caller.tenant_id):
        batch = queries.batch_of(caller, batch_id, lock=True)
        if batch is None:
            raise refusals.no_such_batch(shown)
        if batch.status == Batch.Status.CANCELLING:
            return batch
        if batch.status not in (Batch.Status.VALIDATING, Batch.Status.IN_PROGRESS):
            raise CallerError(
                "batch_not_cancellable",
                f"A batch that is {batch.status.replace('_', ' ')} cannot be cancelled.",
                status=409,
                field="batch_id",
            )
        batch.status = Batch.Status.CANCELLING
        batch.cancelling_at = clock.now()
        batch.save(update_fields=["status", "cancelling_at"])
        transaction.on_commit(partial(doorbell.ring, caller.tenant_id, batch.id))
    return batch
