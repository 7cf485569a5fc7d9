"""Celery's entries into metering. Each may be lost or doubled without harm."""

from typing import Any
from uuid import UUID

import msgspec
from celery import shared_task

from meterplane.contracts.usage import SegmentMessage
from meterplane.metering import ingest, partitions
from meterplane.metering.canary.run import run_canary
from meterplane.metering.exports import doorbell, sweep
from meterplane.metering.reconcile.forget import forget_what_is_old
from meterplane.metering.reconcile.hours import reconcile as reconcile_due
from meterplane.metering.reconcile.scrape import scrape


@shared_task(name="metering.ingest_segments")
def ingest_segments(messages: list[dict[str, Any]]) -> None:
    """Take in the segments a shipper sent; what is refused stays on the gateway's disk."""
    try:
        segments = msgspec.convert(messages, list[SegmentMessage])
    except msgspec.ValidationError as problem:
        raise ingest.SegmentRefused(f"no segment messages: {problem}") from None
    ingest.ingest_segments(segments)


@shared_task(name="metering.ensure_partitions")
def ensure_partitions() -> None:
    """Partitions for the coming days."""
    partitions.ensure_days_ahead()


@shared_task(name="metering.look_at_triton")
def look_at_triton() -> None:
    """What every Triton has counted until now."""
    scrape()


@shared_task(name="metering.reconcile")
def reconcile() -> None:
    """Hours that ended, and those of which something came late."""
    reconcile_due()


@shared_task(name="metering.forget_reconciled")
def forget_reconciled() -> None:
    """What reconciliation kept long enough."""
    forget_what_is_old()


@shared_task(name="metering.canary")
def canary() -> None:
    """Known requests, from the door to the roll-ups."""
    run_canary()


@shared_task(name=doorbell.WORK)
def work_export(export_id: str) -> None:
    """Bring one export as far as it goes now."""
    from meterplane.metering.exports.advance import advance  # Arrow only where it is needed

    advance(UUID(export_id))


@shared_task(name="metering.sweep_exports")
def sweep_exports() -> None:
    """Doorbells that were lost, files that expired."""
    sweep.sweep()


@shared_task(name="metering.archive_days")
def archive_days() -> None:
    """Days that are past keeping, from PostgreSQL to files."""
    from meterplane.metering.archive import archive_due_days  # Arrow here, too

    archive_due_days()


@shared_task(name=doorbell.DELIVER)
def deliver_exports() -> None:
    """What schedules say is due, to their buckets."""
    from meterplane.metering.exports.deliver import deliver_due

    deliver_due()
