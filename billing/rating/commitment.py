"""What a tenant promised to spend in a period, and what is missing to it at the end.

Guarantees: a commitment that holds from within a period is prorated to what is left of it, and
rounded once; the true-up is the difference to what was spent, never negative, so that together
they are the commitment to the cent.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.rating.prorate import By, Span, prorate


@dataclass(frozen=True, slots=True)
class Commitment:
    """In minor units: what is promised for the period, and what is missing to it."""

    commitment_minor: int
    true_up_minor: int


def commitment(
    committed: Decimal,
    spent_minor: int,
    period: Span,
    by: By,
    currency: str,
    from_at: datetime | None = None,
) -> Commitment:
    """The commitment of `committed` for a whole period that holds from `from_at`, by default from
    the start of it. Raises `CallerError` `period_invalid` as `prorate` does.
    """
    holds = Span(period.starts_at if from_at is None else from_at, period.ends_at)
    promised_minor = prorate(committed, holds, period, by, currency)
    return Commitment(promised_minor, max(promised_minor - spent_minor, 0))
