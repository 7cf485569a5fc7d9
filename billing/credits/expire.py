"""Write off what expired unused: breakage, or over into a grant for another term.

A grant expires at `expires_at` exactly: from that instant on it is no balance and pays for no later
period. What is left of it may still have to pay for one that ended by then and is not closed yet
(November's credit, on 1 December, before November is closed), so it is written off once there is
none: `pays_until` is when the next period to be closed ends.

Guarantees: any number of sweeps at once write off once. A grant rolls over once; what a correction
gives back to it later expires. The successor begins where the grant ended and lasts as long, and
does not roll over again.
"""

from datetime import datetime
from uuid import UUID

from billing.credits.grant import open_grant
from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining
from billing.credits.postings import post_moved
from billing.credits.terms import GrantTerms, digest_of
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import system_scope, tenant_scope

EXPIRED_PER_CALL_MAX = 500
SYSTEM = "system"


def tenants_with_expired_credit() -> list[UUID]:
    """Whose grants have expired with something left. Opens the system's door."""
    with system_scope("whose credit has expired"):
        return list(
            CreditRemaining.objects.filter(
                remaining_minor__gt=0, grant__expires_at__lte=clock.now()
            )
            .order_by("tenant_id")
            .values_list("tenant_id", flat=True)
            .distinct()
        )


def expire_credit(*, tenant_id: UUID, pays_until: datetime | None) -> int:
    """Write off one organisation's expired credit; how many grants that were.

    `pays_until`: grants that expire at or after it are left for a period still to be closed; None:
    there is none. At most `EXPIRED_PER_CALL_MAX` at a time.
    """
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        due = CreditRemaining.objects.filter(
            remaining_minor__gt=0, grant__expires_at__lte=clock.now()
        )
        if pays_until is not None:
            due = due.filter(grant__expires_at__lt=pays_until)
        rows = due.select_related("grant").order_by("grant__expires_at", "grant_id")
        written_off = list(rows[:EXPIRED_PER_CALL_MAX])
        for row in written_off:
            _write_off(tenant_id, row.grant, row.remaining_minor)
        if written_off:
            balance_changed(tenant_id)
        return len(written_off)


def _write_off(tenant_id: UUID, of: CreditGrant, remaining_minor: int) -> None:
    rolled_minor = min(remaining_minor, of.rollover_max_minor or 0)
    if rolled_minor and CreditGrant.objects.filter(rolled_from=of).exists():
        rolled_minor = 0
    if rolled_minor and of.expires_at is not None:
        _move(tenant_id, of, CreditMovement.Kind.ROLLED_OVER, rolled_minor, of.id)
        _succeed(tenant_id, of, rolled_minor, of.expires_at)
    expired_minor = remaining_minor - rolled_minor
    if expired_minor:
        movement_id = uuid7()
        _move(tenant_id, of, CreditMovement.Kind.EXPIRED, expired_minor, movement_id)
        post_moved(CreditMovement.Kind.EXPIRED, movement_id, [(of, expired_minor)], clock.now())


def _move(
    tenant_id: UUID, of: CreditGrant, kind: CreditMovement.Kind, amount_minor: int, source_id: UUID
) -> None:
    CreditMovement.objects.create(
        tenant_id=tenant_id,
        grant=of,
        kind=kind,
        amount_minor=amount_minor,
        source_id=source_id,
        at=of.expires_at,
    )


def _succeed(tenant_id: UUID, of: CreditGrant, amount_minor: int, begins_at: datetime) -> None:
    terms = GrantTerms(
        kind=of.kind,
        currency=of.currency,
        amount_minor=amount_minor,
        priority=of.priority,
        effective_at=begins_at,
        expires_at=begins_at + (begins_at - of.effective_at),
        models_only=tuple(of.models_only),
        meters_only=tuple(of.meters_only),
        reason=of.reason,
    )
    open_grant(
        tenant_id,
        terms,
        idempotency_key=f"rollover:{of.id}",
        created_by=SYSTEM,
        request_digest=digest_of(terms),
        effective_at=begins_at,
        rolled_from=of,
    )
