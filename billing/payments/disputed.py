"""What disputes have of a payment: for what is paid back of it, and for who is told.

Each needs a door: the tenant's, or the system's for rows of more than one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, Sum

from billing.payments.dispute_models import OVER
from billing.payments.models import Dispute, DisputeMovement
from meterplane.kernel import clock

_K = DisputeMovement.Kind
# What each kind does to `disputed`, the money that a dispute holds.
SIGN = {
    _K.WITHDRAWN: 1, _K.REINSTATED: -1, _K.CREDIT_TAKEN: -1, _K.CREDIT_RETURNED: 1,
    _K.LOST: -1, _K.RECOVERED: 1,
}  # fmt: skip
_HARMLESS = (Dispute.Status.WON, Dispute.Status.PREVENTED)
PAGE_MAX = 200
LOSS_TOLD_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Taken:
    """Of a payment: what banks have of it, and what of a loss had been owed or paid too much."""

    gone_minor: int = 0
    owed_minor: int = 0
    balance_minor: int = 0


@dataclass(frozen=True, slots=True)
class DisputeView:
    """A dispute as its customer is told."""

    id: UUID
    status: str
    currency: str
    amount_minor: int
    invoice_id: UUID | None
    invoice_number: str
    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_lost(self) -> bool:
        """A bank that decided for the customer keeps nothing: it gave the money back."""
        return self.status == Dispute.Status.LOST

    @property
    def is_inquiry(self) -> bool:
        """A bank that only asks takes nothing."""
        return self.status.startswith("warning_")

    @property
    def what(self) -> str:
        """What was paid for."""
        return f"invoice {self.invoice_number}" if self.invoice_id is not None else "credit"


def taken_of_invoice(invoice_id: UUID) -> Taken:
    """By all disputes of an invoice's payment."""
    rows = (
        DisputeMovement.objects.filter(dispute__invoice_id=invoice_id)
        .order_by()
        .values("kind")
        .annotate(amount=Sum("amount_minor"), owed=Sum("owed_minor"), balance=Sum("balance_minor"))
    )
    sums = {row["kind"]: row for row in rows}

    def net(column: str, more: str, less: str) -> int:
        return int(
            (sums[more][column] if more in sums else 0)
            - (sums[less][column] if less in sums else 0)
        )

    return Taken(
        gone_minor=net("amount", _K.WITHDRAWN, _K.REINSTATED),
        owed_minor=net("owed", _K.LOST, _K.RECOVERED),
        balance_minor=net("balance", _K.LOST, _K.RECOVERED),
    )


def held_back(invoice_id: UUID) -> bool:
    """Whether a bank decides over the payment of an invoice, or has decided against us."""
    statuses = set(Dispute.objects.filter(invoice_id=invoice_id).values_list("status", flat=True))
    return any(not each.startswith("warning_") and each not in _HARMLESS for each in statuses)


def disputes_told(invoice_id: UUID | None = None) -> list[DisputeView]:
    """The tenant's that are not over or were lost lately, the newest first; of one invoice if it is
    named."""
    lost_lately = Q(status=Dispute.Status.LOST, closed_at__gt=clock.now() - LOSS_TOLD_FOR)
    rows = Dispute.objects.filter(~Q(status__in=OVER) | lost_lately).exclude(tenant=None)
    if invoice_id is not None:
        rows = rows.filter(invoice_id=invoice_id)
    return [
        DisputeView(
            id=row.id,
            status=row.status,
            currency=row.currency,
            amount_minor=row.amount_minor,
            invoice_id=row.invoice_id,
            invoice_number=str(row.invoice.number or "") if row.invoice is not None else "",
            opened_at=row.opened_at,
            closed_at=row.closed_at,
        )
        for row in rows.select_related("invoice")[:PAGE_MAX]
    ]


def sums_by_kind(rows: Collection[DisputeMovement]) -> dict[str, int]:
    """What each kind comes to."""
    sums = dict.fromkeys([str(kind) for kind in _K], 0)
    for row in rows:
        sums[row.kind] += row.amount_minor
    return sums
