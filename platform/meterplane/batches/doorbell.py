"""Tell a worker that a batch has work. Lost or doubled it changes nothing: the sweep looks too."""

import logging
from uuid import UUID

from celery import current_app

log = logging.getLogger(__name__)

WORK = "batches.work"  # sent by name: the task itself rings when it is not done


def ring(tenant_id: UUID, batch_id: UUID, after_s: float = 0) -> None:
    """Never raises: what was asked for is in the database."""
    try:
        current_app.send_task(
            WORK, args=(str(tenant_id), str(batch_id)), countdown=after_s or None, retry=False
        )
    except Exception as away:
        log.warning("batch %s waits for the sweep: %s", batch_id, str(away).splitlines()[:1])
