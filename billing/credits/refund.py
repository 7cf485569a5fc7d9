"""Pay back what is left of purchased credit.

Guarantees: a grant is refunded once, all that is left of it at that moment, and never more: what
was drawn, expired or given is not refunded. Asked again, the first refund answers. Usage of the
running period that is not invoiced yet is not held against it: it is invoiced without that credit.

Does not know how the money gets back: the ledger holds it in `refunds` until it has.
"""

from uuid import UUID

from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining, Kind
from billing.credits.postings import post_moved
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope


def refund_credit(*, tenant_id: UUID, grant_id: UUID) -> int:
    """Take what is left of a purchased grant to pay it back; how much, in minor units.

    Raises `CallerError` 404 `credit_not_found`, 409 `credit_not_refundable`.
    """
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        row: CreditGrant | None = CreditGrant.objects.filter(id=grant_id).first()
        if row is None:
            raise CallerError("credit_not_found", "There is no such grant here.", status=404)
        before: CreditMovement | None = CreditMovement.objects.filter(
            grant=row, kind=CreditMovement.Kind.REFUNDED
        ).first()
        if before is not None:
            return int(before.amount_minor)
        now = clock.now()
        amount_minor: int = CreditRemaining.objects.get(grant=row).remaining_minor
        if row.kind != Kind.PURCHASED:
            raise _refuse("Promotional credit was given, not bought: it is not paid back.")
        if row.expires_at is not None and row.expires_at <= now:
            raise _refuse("This credit has expired.")
        if not amount_minor:
            raise _refuse("Nothing is left of this credit.")
        CreditMovement.objects.create(
            tenant_id=tenant_id,
            grant=row,
            kind=CreditMovement.Kind.REFUNDED,
            amount_minor=amount_minor,
            source_id=row.id,
            at=now,
        )
        post_moved(CreditMovement.Kind.REFUNDED, row.id, [(row, amount_minor)], now)
        balance_changed(tenant_id)
        return amount_minor


def _refuse(message: str) -> CallerError:
    return CallerError("credit_not_refundable", message, status=409)
