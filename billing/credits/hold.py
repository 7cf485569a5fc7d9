"""An organisation that is held to its credit: what it spends, its live credit covers.

Admission refuses what the credit does not cover (`policy.credit_limit` says how much that is, from
what stands here). All is counted in totals that only the events below change, so that no moment has
the same credit twice, or lacks it:

    covered = what remains of live grants + `settled_nano`
    spent   = all that was metered since `counted_from`, what open requests hold, what pools hold

Spend of the open period is what exceeds `settled_nano`. When a period is closed, what is drawn
leaves the first, and what the period was metered to cost is added to `settled_nano`, in one
transaction that lets no usage arrive meanwhile. The two differ where rating and metering do (tiers,
contracts, rounding): what counts from then on is what was drawn. An interim invoice does the same
for what it bills.

Does not know the gateways: `balance_changed` compiles policies anew, in the caller's transaction.
"""

from datetime import datetime
from uuid import UUID

from billing.credits.models import CreditHold
from meterplane.metering.queries import cost_between
from tenants import policy_port


def hold_of_tenant() -> CreditHold | None:
    """The hold that is in force. Needs the tenant's door."""
    row: CreditHold | None = CreditHold.objects.filter(is_held=True).first()
    return row


def balance_changed(tenant_id: UUID) -> None:
    """Admission follows what credit covers now. The last thing of a transaction that moved any.

    Needs the tenant's door. After commit it raises `WorldError` if gateways could not be told.
    """
    if CreditHold.objects.filter(is_held=True).exists():
        policy_port.recompile(tenant_id)


def settle(ends_at: datetime, *, unbilled_nano: int = 0) -> None:
    """What was used until then is being invoiced: its cost is spend of the open period no more.

    But for `unbilled_nano`, which the invoice leaves to a later one. Needs the tenant's door, usage
    that is held (`arrivals.hold`), and credit drawn for the invoice in the same transaction.
    """
    hold = hold_of_tenant()
    if hold is not None:
        hold.settled_nano = max(0, cost_between(hold.counted_from, ends_at) - unbilled_nano)
        hold.save(update_fields=["settled_nano"])
