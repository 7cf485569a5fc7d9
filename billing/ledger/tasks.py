"""Celery's entry into the ledger: the audit of the night, in parts that a worker has time for."""

import time

from celery import shared_task

from billing.ledger.audit_night import audit_night
from meterplane.kernel import clock

AUDIT_FOR_S = 240  # at a time; below a worker's limit for a task, and its place is others' again


@shared_task(name="ledger.audit_nightly")
def audit_nightly() -> None:
    """Go on with it, if it is due. What is left when the time is up is rung for again."""
    ends = time.monotonic() + AUDIT_FOR_S
    run = audit_night(clock.now(), stop=lambda: time.monotonic() > ends)
    if run is not None and run.finished_at is None:
        audit_nightly.delay()
