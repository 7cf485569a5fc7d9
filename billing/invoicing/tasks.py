"""Celery's entries into invoicing: months that are over are closed, what was used of a running one
is invoiced where it is enough, and credit that expired is written off once no period needs it.

Each looks for work and finishes it: lost or doubled, a message changes nothing.
"""

import logging
from uuid import UUID

from celery import shared_task

from billing.credits.expire import expire_credit, tenants_with_expired_credit
from billing.invoicing import due, interim
from billing.invoicing.close import open_period
from billing.invoicing.usage import month_after
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

CLOSE_FOR_S = 240  # at a time; below a worker's limit for a task, and its place is others' again


@shared_task(name="invoicing.close_months")
def close_months() -> None:
    """Ring for each part of the organisations, if there is anybody whose month is over."""
    if due.count_due(due.month_due(clock.now())):
        for shard in range(due.SHARDS):
            close_shard.delay(shard)


@shared_task(name="invoicing.close_shard")
def close_shard(shard: int) -> None:
    """Close a part of them. What is left when its time is up is rung for again."""
    stop = due.seconds_from_now(CLOSE_FOR_S)
    for _ in due.close_shard(due.month_due(clock.now()), shard, stop=stop):
        pass
    if stop():
        close_shard.delay(shard)


@shared_task(name="invoicing.make_interims")
def make_interims() -> None:
    """Ring for each part of the organisations, if there is anybody who has a threshold."""
    if interim.has_anybody():
        for shard in range(due.SHARDS):
            make_interims_of.delay(shard)


@shared_task(name="invoicing.make_interims_of")
def make_interims_of(shard: int) -> None:
    """Look at a part of them. Who is not reached in time is looked at the next time."""
    for _ in interim.interim_shard(shard, stop=due.seconds_from_now(CLOSE_FOR_S)):
        pass


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
