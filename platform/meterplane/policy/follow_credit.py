"""What an organisation held to its credit may use follows what becomes known by the clock alone.

Acts on credit compile policies themselves, and policies carry the instants of expiries. Left for a
sweep: what a period cost that is just over, the instants beyond those a policy carries, usage from
before the organisation was held, and changes whose process died after its commit, before gateways
were told.

Nothing is marked done: a sweep that is missed is made up for by the next one.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import redis
from django.conf import settings

from billing.credits.models import CreditHold
from meterplane.contracts import admission_keys, windows
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.policy.compile import recompile
from meterplane.policy.grants import pool_of, tell_pool
from meterplane.policy.hold_to_credit import LATE, count_late_opening
from meterplane.policy.models import GatewayPolicy
from meterplane.policy.publish import admission_redis, publish_versions
from tenants.scoping import system_scope, tenant_scope

T = TypeVar("T")
log = logging.getLogger(__name__)

TOLD_AGAIN_FOR = timedelta(minutes=2)


def follow_credit() -> int:
    """Look at every organisation there is something to be seen of; how many that was."""
    now = clock.now()
    with system_scope("whose credit is to be looked at"):
        holds = CreditHold.objects.filter(is_held=True)
        due = set(holds.filter(next_look_at__lte=now).values_list("tenant_id", flat=True))
        young = list(holds.filter(held_since__gt=now - LATE))
        held = holds.values("tenant_id")
        changed = set(
            GatewayPolicy.objects.filter(
                tenant_id__in=held, compiled_at__gt=now - TOLD_AGAIN_FOR
            ).values_list("tenant_id", flat=True)
        )
    for hold in young:
        _try(_count_late, hold)
    for tenant_id in sorted(due):
        _try(recompile, tenant_id)
    for tenant_id in sorted(changed - due):
        _try(_tell_again, tenant_id)
    return len(due | changed | {hold.tenant_id for hold in young})


def _try(look: Callable[[T], None], of: T) -> None:
    try:
        look(of)
    except (WorldError, redis.RedisError) as away:
        log.warning("gateways could not be told of credit; the next sweep tries: %s", away)
    except Exception:
        log.exception("credit could not be looked at; the next sweep tries")


def _count_late(hold: CreditHold) -> None:
    told = count_late_opening(hold.tenant_id)
    if told is None:
        return
    label = windows.label("credit", hold.held_since, hold.generation)
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    epoch = client.get(admission_keys.epoch(hold.tenant_id))
    if isinstance(epoch, bytes):
        pool = pool_of(hold.tenant_id, "organisation", hold.tenant_id, "", label)
        tell_pool(client, pool, hold.tenant_id, epoch.decode(), told)


def _tell_again(tenant_id: UUID) -> None:
    with tenant_scope(tenant_id):
        versions = dict(GatewayPolicy.objects.values_list("key_id", "version"))
    publish_versions(tenant_id, versions)
