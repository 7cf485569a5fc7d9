"""Celery's entry into invoicing: credit that expired is written off once no period needs it.

Looks for work and finishes it: lost or doubled, a message changes nothing.
"""

import logging
from uuid import UUID

from celery import shared_task

from billing.credits.expire import expire_credit, tenants_with_expired_credit
from billing.invoicing.close import open_period
from billing.invoicing.usage import month_after
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)


@shared_task(name="invoicing.expire_credit")
def expire_credits() -> None:
    """Every organisation's. One that fails does not keep others waiting."""
    for tenant_id in tenants_with_expired_credit():
        try:
            expire_credit_of(tenant_id)
        except Exception:
            log.exception("credit of %s could not be written off; the next sweep tries", tenant_id)


def expire_credit_of(tenant_id: UUID) -> int:
    """Write off what expired and no period that ended by then can still draw; how many grants."""
    with tenant_scope(tenant_id):
        pays_until = month_after(open_period().starts_at)
        return expire_credit(tenant_id=tenant_id, pays_until=pays_until)
