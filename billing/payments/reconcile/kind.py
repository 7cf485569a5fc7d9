"""What a kind of thing that stands on both sides is to who compares it, and whose customers are
ours.

A kind says how to list what was made there in a window and how to read one of it again; which of
ours those are, and which of ours were made in the window; and how to bring one of ours up to what
is there, so that news on its way is no difference. Ours are read through the system's door, theirs
outside any transaction.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.payments.models import BillingAccount
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Row
from tenants.scoping import system_scope

BROUGHT_WITHIN = timedelta(days=1)  # what is ours and nobody brought there is told after this


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing that stands on both sides. Windows are [start, end)."""

    name: str
    theirs_made: Callable[[datetime, datetime], list[Row]]
    theirs: Callable[[str], Row | None]
    ours: Callable[[Collection[str]], list[Row]]  # those with these ids of theirs
    ours_made: Callable[[datetime, datetime], list[Row]]
    settle: Callable[[str], object]  # bring ours with this id of theirs up to date


def customers_of(provider: PaymentProvider, asked: Collection[str]) -> set[str]:
    """Which of these customers are ours."""
    with system_scope("which customers are ours"):
        return set(
            BillingAccount.objects.filter(
                provider=provider.name, customer_id__in=asked
            ).values_list("customer_id", flat=True)
        )
