"""Celery's entry into credits: what recurs is granted when it is due.

Looks for work and finishes it: lost or doubled, a message changes nothing. What expires is swept
from `invoicing.tasks`, which knows which periods are still to be closed.
"""

import logging

from celery import shared_task

from billing.credits.recur import grant_due, tenants_with_credit_due

log = logging.getLogger(__name__)


@shared_task(name="credits.grant_due")
def grant_due_credit() -> None:
    """Every occurrence that is due. One organisation that fails does not keep others waiting."""
    for tenant_id in tenants_with_credit_due():
        try:
            grant_due(tenant_id)
        except Exception:
            log.exception(
                "credit of %s could not be granted; the next sweep tries again", tenant_id
            )
