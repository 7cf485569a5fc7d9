"""What an organisation's credit still covers, as people read it, and when they are told it is low.

`spendable` is what admission would let through now: what is covered less all that was spent and is
held. That is the pool's to say; while the admission Redis cannot be asked, or has only begun, what
was metered stands for it, and what open requests hold is not known.
"""

import contextlib
from dataclasses import dataclass
from datetime import datetime

import redis
from django.conf import settings

from billing.credits.hold import hold_of_tenant
from billing.credits.models import CreditGrant, CreditHold
from meterplane.contracts import windows
from meterplane.contracts.admission_keys import LimitWindowName
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_nano
from meterplane.metering.queries import cost_between
from meterplane.policy.alert_rules import Reading
from meterplane.policy.credit_limit import covered_nano
from meterplane.policy.grants import pool_of
from meterplane.policy.publish import admission_redis
from tenants.models import Organisation


@dataclass(frozen=True, slots=True)
class ShownCredit:
    """In nano. `spent` is of the open period, as metered; `held` by requests that run now, None
    where that is not known."""

    spendable_nano: int
    spent_nano: int
    held_nano: int | None


@dataclass(frozen=True, slots=True)
class CreditReading:
    """What an alert tells of; its name begins anew with each grant. Low is below `floor_nano`."""

    name: LimitWindowName
    reading: Reading
    floor_nano: int


def shown_credit() -> ShownCredit | None:
    """None for an organisation that is not held to its credit. Needs its door."""
    hold = hold_of_tenant()
    if hold is None:
        return None
    now = clock.now()
    metered_nano = cost_between(hold.counted_from, now)
    used_nano, held_nano = metered_nano, None
    pool = _pool(hold)
    if "granted" in pool:
        used_nano = pool["granted"] - pool.get("left", 0)
        held_nano = pool.get("credited", 0) - pool.get("spent", 0) - pool.get("left", 0)
    return ShownCredit(
        spendable_nano=max(0, covered_nano(hold, now) - used_nano),
        spent_nano=max(0, metered_nano - hold.settled_nano),
        held_nano=held_nano,
    )


def credit_reading(organisation: Organisation, now: datetime) -> CreditReading | None:
    """None for an organisation that is not held to its credit, or was never granted any.

    Low is below what the organisation chose for its balance, else a tenth of the newest grant.
    """
    hold = hold_of_tenant()
    newest: CreditGrant | None = CreditGrant.objects.order_by("-created_at", "-id").first()
    if hold is None or newest is None:
        return None
    name = LimitWindowName(
        "organisation", organisation.id, "", "spend", "credit", f"credit:{newest.id.hex}"
    )
    floor_nano = organisation.balance_alert_nano
    if floor_nano is None:
        floor_nano = minor_to_nano(newest.amount_minor, newest.currency) // 10
    used_nano = cost_between(hold.counted_from, now)
    return CreditReading(name, Reading(covered_nano(hold, now), "enforce", used_nano), floor_nano)


def _pool(hold: CreditHold) -> dict[str, int]:
    label = windows.label("credit", hold.held_since, hold.generation)
    name = pool_of(hold.tenant_id, "organisation", hold.tenant_id, "", label)
    fields = ("granted", "left", "credited", "spent")
    with contextlib.suppress(redis.RedisError):
        found = admission_redis(settings.ADMISSION_REDIS_URL).hmget(name, fields)
        told = zip(fields, found, strict=True)
        return {field: int(value) for field, value in told if value is not None}
    return {}
