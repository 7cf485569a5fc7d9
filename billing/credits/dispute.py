"""Take back credit whose payment is disputed, as far as it is unspent, and give it back again.

Guarantees: of the grant that was paid for with it and of no other, never more than is left, and no
more comes back than was taken. Each act is done once for its `source_id`. Usage of the running
period that is not invoiced yet is not held against it: it is invoiced without that credit.
"""

from uuid import UUID

from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining
from billing.credits.postings import post_moved
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from tenants.scoping import current_tenant_id


def take_disputed(grant_id: UUID, *, most_minor: int, source_id: UUID) -> int:
    """Take what is left of a grant, `most_minor` at most; how much that was. Needs the door."""
    tenant_id = current_tenant_id()
    one_act_at_a_time(tenant_id)
    left: int = CreditRemaining.objects.get(grant_id=grant_id).remaining_minor
    amount_minor = min(left, most_minor)
    if amount_minor > 0:
        _move(tenant_id, grant_id, CreditMovement.Kind.DISPUTED, amount_minor, source_id)
    return max(0, amount_minor)


def give_back_disputed(grant_id: UUID, *, amount_minor: int, source_id: UUID) -> None:
    """The payment is ours after all: what was taken of its credit is there again. Needs the door.

    PostgreSQL refuses more than disputes took.
    """
    tenant_id = current_tenant_id()
    one_act_at_a_time(tenant_id)
    _move(tenant_id, grant_id, CreditMovement.Kind.REINSTATED, amount_minor, source_id)


def _move(
    tenant_id: UUID, grant_id: UUID, kind: CreditMovement.Kind, amount_minor: int, source_id: UUID
) -> None:
    now = clock.now()
    row: CreditGrant = CreditGrant.objects.get(id=grant_id)
    CreditMovement.objects.create(
        tenant_id=tenant_id,
        grant=row,
        kind=kind,
        amount_minor=amount_minor,
        source_id=source_id,
        at=now,
        recorded_at=now,
    )
    post_moved(kind, source_id, [(row, amount_minor)], now)
    balance_changed(tenant_id)
