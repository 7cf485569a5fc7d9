"""Celery's entries into metering. Each may be lost or doubled without harm."""

from typing import Any

import msgspec
from celery import shared_task

from meterplane.contracts.usage import SegmentMessage
from meterplane.metering import ingest, partitions


@shared_task(name="metering.ingest_segment")
def ingest_segment(message: dict[str, Any]) -> None:
    """Take in the segment a shipper sent; what is refused stays on the gateway's disk."""
    try:
        segment = msgspec.convert(message, SegmentMessage)
    except msgspec.ValidationError as problem:
        raise ingest.SegmentRefused(f"no segment message: {problem}") from None
    ingest.ingest_segment(segment)


@shared_task(name="metering.ensure_partitions")
def ensure_partitions() -> None:
    """Partitions for the coming days."""
    partitions.ensure_days_ahead()
