"""Give back what an invoice drew: it is voided, or a credit note or a later invoice corrects it.

Guarantees: what was drawn last comes back first, never more than is still drawn, once for each
source (the voided invoice, the credit note, what a later invoice corrects). A grant that expired
meanwhile gets its part back too, and the next sweep writes it off, as breakage if it was bought: a
correction does not make credit last longer, nor does it make money of it. What is left of a grant
that was refunded may be drawn again, and is not refunded a second time.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
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
    consumed = still_drawn([invoice_id])[invoice_id]
    wanted = sum(amount for _, amount in consumed) if amount_minor is None else amount_minor
    grants = {str(row.id): row for row, _ in consumed}
    parts = restore([Part(str(row.id), amount) for row, amount in consumed], wanted)
    ensure(sum(part.amount for part in parts) == wanted, "what is given back is what was asked for")
    restored = [(grants[part.id], part.amount) for part in parts]
    restore_parts(
        tenant_id=tenant_id, invoice_id=invoice_id, source_id=source_id, restored=restored
    )
    balance_changed(tenant_id)
    return wanted


def restore_parts(
    *,
    tenant_id: UUID,
    invoice_id: UUID,
    source_id: UUID,
    restored: Sequence[tuple[CreditGrant, int]],
) -> None:
    """Give these parts of what an invoice drew back to their grants; without any, nothing.

    Needs the tenant's door, this organisation's turn (`turns`), and a new source. More than was
    drawn is refused by PostgreSQL.
    """
    if not restored:
        return
    now = clock.now()
    CreditMovement.objects.bulk_create(
        CreditMovement(
            tenant_id=tenant_id,
            grant=row,
            kind=_K.RESTORED,
            amount_minor=amount_minor,
            source_id=source_id,
            invoice_id=invoice_id,
            position=position,
            at=now,
        )
        for position, (row, amount_minor) in enumerate(restored, start=1)
    )
    post_moved(_K.RESTORED, source_id, restored, now)


def still_drawn(invoice_ids: Collection[UUID]) -> dict[UUID, list[tuple[CreditGrant, int]]]:
    """What each of these invoices drew and was not given back, in the order of consumption.

    Needs the tenant's door.
    """
    rows = CreditMovement.objects.filter(invoice_id__in=invoice_ids).select_related("grant")
    drawn: dict[UUID, dict[UUID, tuple[CreditGrant, int]]] = defaultdict(dict)
    for row in rows.filter(kind=_K.DRAWN).order_by("position"):
        drawn[row.invoice_id][row.grant_id] = (row.grant, row.amount_minor)
    for row in rows.filter(kind=_K.RESTORED):
        of, amount_minor = drawn[row.invoice_id][row.grant_id]
        drawn[row.invoice_id][row.grant_id] = (of, amount_minor - row.amount_minor)
    return {
        invoice_id: [each for each in drawn[invoice_id].values() if each[1]]
        for invoice_id in invoice_ids
    }


def _restored_for(source_id: UUID) -> list[CreditMovement]:
    return list(CreditMovement.objects.filter(source_id=source_id, kind=_K.RESTORED))
