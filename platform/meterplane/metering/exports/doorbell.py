"""Tell a worker that an export has work. Lost or doubled, it changes nothing: the sweep rings."""

import logging
from uuid import UUID

from celery import current_app

log = logging.getLogger(__name__)

WORK = "metering.work_export"
DELIVER = "metering.deliver_exports"


def ring(export_id: UUID, after_s: float = 0) -> None:
    """Never raises: what was asked for is in the database."""
    try:
        current_app.send_task(WORK, args=(str(export_id),), countdown=after_s or None, retry=False)
    except Exception as away:
        log.warning("export %s waits for the sweep: %s", export_id, str(away).splitlines()[:1])
