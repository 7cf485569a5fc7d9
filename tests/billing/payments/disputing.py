"""Disputes over payments of a tenant, opened and decided at the sandbox's door."""

from typing import Any

from billing.payments.disputed import SIGN
from billing.payments.disputes import mirror_dispute
from billing.payments.models import Dispute, DisputeMovement, PaymentRun
from tenants.scoping import system_scope, tenant_scope
from tests.billing.payments.rig import There, customer_of

FEE = 1500  # of USD, by the sandbox


class Bank:
    """Whoever disputes and decides; ours reads each dispute after it moved, unless told not to."""

    def __init__(self, there: There, provider: Any, *, reads: bool = True) -> None:
        self.there, self.provider, self.reads = there, provider, reads

    def charge(self, tenant, invoice=None) -> str:
        """The charge of an invoice, or the tenant's newest."""
        if invoice is not None:
            with tenant_scope(tenant.id):
                run = PaymentRun.objects.get(invoice_id=invoice.id)
            return str(self.provider.charge_of(run.provider_invoice_id).charge_id)
        charges = self.there.client.v1.charges.list({"customer": customer_of(tenant.id)})
        return str(next(each.id for each in charges.data if each.paid))

    def disputes(self, charge_id: str, **how: Any) -> str:
        made = self.there.sandbox.control(f"/charges/{charge_id}/dispute", how)
        return self._told(str(made["id"]))

    def decides(self, their_id: str, status: str, **how: Any) -> None:
        self.there.sandbox.control(f"/disputes/{their_id}", {"status": status, **how})
        self._told(their_id)

    def moves(self, their_id: str, move: str, **how: Any) -> None:
        self.there.sandbox.control(f"/disputes/{their_id}/funds", {"move": move, **how})
        self._told(their_id)

    def _told(self, their_id: str) -> str:
        if self.reads:
            mirror_dispute(their_id, self.provider)
        return their_id

    def holds(self, their_id: str) -> bool:
        """Whether money of it is gone there."""
        found = self.there.client.v1.disputes.retrieve(their_id)
        return sum(moved.amount for moved in found.balance_transactions) < 0

    def gone_minor(self, tenant) -> int:
        """What disputes have taken from the tenant's payments there, with their fees."""
        charges = self.there.client.v1.charges.list({"customer": customer_of(tenant.id)})
        return -sum(
            moved.net
            for charge in charges.auto_paging_iter()
            if charge.disputed
            for each in self.there.client.v1.disputes.list({"charge": charge.id}).data
            for moved in each.balance_transactions
        )


def dispute_of(their_id: str) -> Dispute:
    with system_scope("test"):
        found: Dispute = Dispute.objects.get(provider_dispute_id=their_id)
        return found


def moved_by(their_id: str) -> list[tuple[str, int]]:
    """(kind, amount) of everything it moved, in order."""
    with system_scope("test"):
        rows = DisputeMovement.objects.filter(dispute__provider_dispute_id=their_id)
        return list(rows.order_by("recorded_at", "id").values_list("kind", "amount_minor"))


def held_by(their_id: str) -> int:
    """What `disputed` holds for it."""
    return sum(SIGN.get(kind, 0) * amount for kind, amount in moved_by(their_id))  # type: ignore[call-overload]
