"""What usage would cost at other prices: a difference for each tenant. Pure.

The same usage is rated twice by `rate`, as it is and as it would be; the worst comes first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from billing.pricing.book import PublishedBook
from billing.rating.rate import Account, Quantity, UsageCannotBeRated, rate


@dataclass(frozen=True, slots=True)
class Case:
    """One tenant's usage of a period, and what it would be rated by."""

    tenant: str
    currency: str
    quantities: Sequence[Quantity]
    prices: Mapping[UUID, PublishedBook]
    then_quantities: Sequence[Quantity]
    then_prices: Mapping[UUID, PublishedBook]
    account: Account


@dataclass(frozen=True, slots=True)
class Delta:
    """What a tenant owes and would owe, in minor units. `problem` says why it cannot be told."""

    tenant: str
    currency: str
    old_minor: int | None
    new_minor: int | None
    problem: str = ""

    @property
    def difference_minor(self) -> int:
        """Above zero: the tenant would pay more."""
        return (self.new_minor or 0) - (self.old_minor or 0)


def compare(case: Case) -> Delta:
    """One tenant's difference."""
    old = new = None
    problem = ""
    try:
        old = rate(case.quantities, case.prices, case.currency, case.account).total_minor
        new = rate(case.then_quantities, case.then_prices, case.currency, case.account).total_minor
    except UsageCannotBeRated as refused:
        problem = str(refused)
    return Delta(case.tenant, case.currency, old, new, problem)


def repinned(quantities: Iterable[Quantity], versions: Iterable[UUID], to: UUID) -> list[Quantity]:
    """The quantities as if those pinned to any of `versions` had been admitted at `to`."""
    moved = frozenset(versions)
    return [
        replace(each, price_version_id=to) if each.price_version_id in moved else each
        for each in quantities
    ]


def worst_first(deltas: Iterable[Delta]) -> list[Delta]:
    """Those that cannot be told, then who would pay most more, then by name."""
    return sorted(deltas, key=lambda each: (not each.problem, -each.difference_minor, each.tenant))
