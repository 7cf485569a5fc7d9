"""A tenant's standing, as its unpaid invoices call for it. Called where an invoice has moved, in
that transaction.

Past due while a case is open, active again once none is. A suspension by dunning is lifted at once
when no invoice that led to it is open any more. One by a person is left alone, and so is theirs who
gave the standing another reason since: a payment does not undo a decision.

Guarantees: invoice, then organisation: whoever moves a standing locks in this order, and sees what
others of the tenant did.
"""

from typing import TYPE_CHECKING
from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments.models import DunningCase, DunningStep, DunningSuspension
from meterplane.kernel import clock
from tenants.models import Organisation
from tenants.standing import set_standing

if TYPE_CHECKING:
    from django.db.models import QuerySet

_OWED = (Invoice.Status.OPEN, Invoice.Status.UNCOLLECTIBLE)
_SETTLED = (Invoice.Status.PAID, Invoice.Status.VOID)
Standing = Organisation.Standing


def judge(tenant_id: UUID) -> None:
    """Open and close cases, and set the standing they call for. Needs the tenant's door."""
    organisation = Organisation.objects.select_for_update().get(id=tenant_id)
    for failed in Invoice.objects.filter(
        status__in=_OWED, payment_attempts__gt=0, dunning_case__isnull=True
    ):
        open_case(failed)
    DunningCase.objects.filter(closed_at__isnull=True, invoice__status__in=_SETTLED).update(
        closed_at=clock.now()
    )
    if organisation.standing == Standing.SUSPENDED:
        if not _is_by_dunning(organisation) or _keeps_suspended():
            return
        DunningSuspension.objects.all().delete()
    first = (
        DunningCase.objects.filter(closed_at__isnull=True)
        .select_related("invoice")
        .order_by("invoice__period_end")
        .first()
    )
    if first is not None:
        why = "could not be charged" if first.invoice.payment_attempts else "is overdue"
        reason = f"Invoice {first.invoice.number} {why}"
        set_standing(tenant_id=tenant_id, standing=Standing.PAST_DUE, reason=reason)
    elif organisation.standing != Standing.ACTIVE:
        set_standing(tenant_id=tenant_id, standing=Standing.ACTIVE, reason="")


def open_case(invoice: Invoice) -> None:
    """The invoice is overdue from now on, if it was not. Needs the tenant's door."""
    DunningCase.objects.get_or_create(
        invoice_id=invoice.id, defaults={"tenant_id": invoice.tenant_id}
    )


def owed_again(invoice: Invoice) -> None:
    """A payment of it was none after all: what it had ended goes on, a suspension too. Needs the
    tenant's door; `judge` follows."""
    cases = DunningCase.objects.filter(invoice_id=invoice.id, closed_at__isnull=False)
    if cases.update(closed_at=None) and _was_suspended_for(invoice.id):
        suspend(invoice.tenant_id, invoice)


def suspend(tenant_id: UUID, invoice: Invoice) -> str:
    """Take the organisation's use, for an invoice that is locked and known to be unpaid.

    What came of it, in words. Needs the tenant's door.
    """
    organisation = Organisation.objects.select_for_update().get(id=tenant_id)
    if organisation.standing == Standing.SUSPENDED:
        return "suspended already"
    reason = f"Invoice {invoice.number} is not paid. Pay it to use the service again"
    DunningSuspension.objects.update_or_create(
        tenant_id=tenant_id, defaults={"reason": reason, "imposed_at": clock.now()}
    )
    set_standing(tenant_id=tenant_id, standing=Standing.SUSPENDED, reason=reason)
    return "suspended"


def _is_by_dunning(organisation: Organisation) -> bool:
    return bool(DunningSuspension.objects.filter(reason=organisation.standing_reason).exists())


def _keeps_suspended() -> bool:
    """Another invoice that is past its grace is still not paid."""
    unpaid = _suspensions().filter(invoice__dunning_case__closed_at__isnull=True)
    return bool(unpaid.exists())


def _was_suspended_for(invoice_id: UUID) -> bool:
    return bool(_suspensions().filter(invoice_id=invoice_id).exists())


def _suspensions() -> "QuerySet[DunningStep]":
    return DunningStep.objects.filter(kind=DunningStep.Kind.SUSPEND, state=DunningStep.State.DONE)
