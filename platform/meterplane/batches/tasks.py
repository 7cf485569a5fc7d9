"""Celery's entries into batches. Each may be lost or doubled without harm."""

from uuid import UUID

from celery import shared_task

from meterplane.batches import sweep as sweeping
from meterplane.batches.advance import advance
from meterplane.batches.doorbell import WORK
from meterplane.batches.limits import TASK_TIME_LIMIT_S


@shared_task(name=WORK, time_limit=TASK_TIME_LIMIT_S, soft_time_limit=TASK_TIME_LIMIT_S - 30)
def work(tenant_id: str, batch_id: str) -> None:
    """Bring one batch as far as it goes now."""
    advance(UUID(tenant_id), UUID(batch_id))


@shared_task(name="batches.sweep")
def sweep() -> None:
    """Windows that closed, doorbells that were lost, files that expired."""
    sweeping.sweep()
