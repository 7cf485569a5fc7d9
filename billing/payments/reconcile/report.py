"""What the last comparison says: of each kind how many agree, what differs, what accounts hold.

Reads what was stored; compares nothing. Needs the system's door, but for `summed`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing.payments.models import PaymentFinding, ReconciledDay
from billing.payments.reconcile.clearing import Holding
from meterplane.kernel.money import minor_to_text

_PLURALS = {
    PaymentFinding.Kind.CUSTOMER: "customers",
    PaymentFinding.Kind.INVOICE: "invoices",
    PaymentFinding.Kind.PAYMENT: "payments",
    PaymentFinding.Kind.TOP_UP: "top-ups",
    PaymentFinding.Kind.REFUND: "refunds",
    PaymentFinding.Kind.CREDIT_NOTE: "credit notes",
    PaymentFinding.Kind.DISPUTE: "disputes",
}


@dataclass(frozen=True, slots=True)
class OfKind:
    """One kind of thing: how many were compared, and how many are the same on both sides."""

    kind: str
    compared: int
    agreed: int

    @property
    def label(self) -> str:
        """Many of them."""
        return _PLURALS.get(PaymentFinding.Kind(self.kind), self.kind.replace("_", " "))

    @property
    def noun(self) -> str:
        """To follow how many were compared."""
        return self.label.removesuffix("s") if self.compared == 1 else self.label


@dataclass(frozen=True, slots=True)
class Last:
    """Of all days together, each as it was when it was last compared."""

    compared_at: datetime | None
    days: int
    kinds: tuple[OfKind, ...]


def last_compared() -> Last:
    """Of every day that was compared."""
    days = list(ReconciledDay.objects.exclude(compared_at=None))
    latest = max((day.compared_at for day in days if day.compared_at is not None), default=None)
    return Last(latest, len(days), summed(day.counts for day in days))


def summed(counts: Iterable[dict[str, Any]]) -> tuple[OfKind, ...]:
    """By kind, in the order in which kinds are listed."""
    sums: dict[str, list[int]] = {kind: [0, 0] for kind in PaymentFinding.Kind.values}
    for of_day in counts:
        for kind, count in of_day.items():
            sums[kind][0] += count["compared"]
            sums[kind][1] += count["agreed"]
    return tuple(OfKind(kind, *both) for kind, both in sums.items() if kind in _PLURALS)


def open_findings() -> list[PaymentFinding]:
    """The oldest first."""
    return list(PaymentFinding.objects.filter(closed_at=None).order_by("opened_at", "id"))


def finding_told(row: PaymentFinding) -> dict[str, Any]:
    """One finding as JSON."""
    return {
        "id": str(row.id),
        "day": str(row.day),
        "kind": row.kind,
        "problem": row.problem,
        "ours": row.our_id or None,
        "theirs": row.their_id or None,
        "our_amount": row.our_amount or None,
        "their_amount": row.their_amount or None,
        "said": row.said,
        "opened_at": row.opened_at.isoformat(),
        "acknowledged_at": row.acknowledged_at.isoformat() if row.acknowledged_at else None,
        "acknowledged_by": row.acknowledged_by or None,
        "acknowledgement": row.acknowledgement or None,
    }


def holding_told(held: Holding) -> dict[str, Any]:
    """One clearing account as JSON."""
    return {
        "organisation": held.slug,
        "account": held.account,
        "currency": held.currency,
        "balance": minor_to_text(held.balance_minor, held.currency),
        "unexplained": minor_to_text(held.rest_minor, held.currency),
        "open_items": [
            {"name": item.name, "amount": minor_to_text(item.amount_minor, item.currency)}
            for item in held.items
        ],
    }
