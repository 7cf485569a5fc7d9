"""Give back what an invoice drew, when it is voided or a credit note corrects it.

Guarantees: what was drawn last comes back first, never more than is still drawn, once for each
source (the voided invoice, the credit note). A grant that expired meanwhile gets its part back too,
and the next sweep writes it off: a correction does not make credit last longer.
"""

from uuid import UUID

from billing.credits.draw import Part, restore
from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant, CreditMovement
from billing.credits.postings import post_moved
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.invariant import ensure

_K = CreditMovement.Kind


def restore_credit(
    *, tenant_id: UUID, invoice_id: UUID, source_id: UUID, amount_minor: int | None = None
) -> int:
    """Give back `amount_minor`, or all that is still drawn; how much that was, in minor units.

    `source_id` names what asks. Needs the tenant's door. Raises `CallerError` `restore_too_large`
    for more than is still drawn, `amount_negative`, and 409 `source_reused` for another amount.
    """
    one_act_at_a_time(tenant_id)
    known = [row.amount_minor for row in _restored_for(source_id)]
    if known:
        if amount_minor not in (None, sum(known)):
            raise CallerError(
                "source_reused", "This correction gave back another amount.", status=409
            )
        return sum(known)
    consumed = still_drawn(invoice_id)
    wanted = sum(amount for _, amount in consumed) if amount_minor is None else amount_minor
    grants = {str(row.id): row for row, _ in consumed}
    parts = restore([Part(str(row.id), amount) for row, amount in consumed], wanted)
    ensure(sum(part.amount for part in parts) == wanted, "what is given back is what was asked for")
    if not parts:
        return 0
    now = clock.now()
    CreditMovement.objects.bulk_create(
        CreditMovement(
            tenant_id=tenant_id,
            grant=grants[part.id],
            kind=_K.RESTORED,
            amount_minor=part.amount,
            source_id=source_id,
            invoice_id=invoice_id,
            position=position,
            at=now,
        )
        for position, part in enumerate(parts, start=1)
    )
    restored = [(grants[part.id], part.amount) for part in parts]
    post_moved(_K.RESTORED, source_id, restored, now)
    balance_changed(tenant_id)
    return wanted


def still_drawn(invoice_id: UUID) -> list[tuple[CreditGrant, int]]:
    """What an invoice drew and was not given back, in the order of consumption.

    Needs the tenant's door.
    """
    rows = CreditMovement.objects.filter(invoice_id=invoice_id).select_related("grant")
    drawn: dict[UUID, tuple[CreditGrant, int]] = {}
    for row in rows.filter(kind=_K.DRAWN).order_by("position"):
        drawn[row.grant_id] = (row.grant, row.amount_minor)
    for row in rows.filter(kind=_K.RESTORED):
        of, amount_minor = drawn[row.grant_id]
        drawn[row.grant_id] = (of, amount_minor - row.amount_minor)
    return [(of, amount_minor) for of, amount_minor in drawn.values() if amount_minor]


def _restored_for(source_id: UUID) -> list[CreditMovement]:
    return list(CreditMovement.objects.filter(source_id=source_id, kind=_K.RESTORED))
