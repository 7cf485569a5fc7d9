"""What a part of a period costs, by days or by seconds.

Guarantees: amount times part over whole is exact; it is rounded once, halves away from zero, to
the currency's minor unit. Before that the parts of a period add up to the whole.

Periods are half-open and UTC. By day, an instant is the UTC day it falls on: what begins or ends
within a day counts from, or up to, the start of it. By second, fractions of one are cut likewise.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import divide_half_away, minor_digits

By = Literal["day", "second"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT = {"day": timedelta(days=1), "second": timedelta(seconds=1)}


@dataclass(frozen=True, slots=True)
class Span:
    """From `starts_at` until `ends_at`, which is outside; both aware."""

    starts_at: datetime
    ends_at: datetime

    def count(self, by: By) -> int:
        """The days or seconds in it."""
        unit = _UNIT[by]
        return (self.ends_at - _EPOCH) // unit - (self.starts_at - _EPOCH) // unit


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of price gives back and charges, each rounded once; net is their sum."""

    credit_minor: int
    charge_minor: int

    @property
    def net_minor(self) -> int:
        """What is to be paid for the change; negative for a cheaper price."""
        return self.credit_minor + self.charge_minor


def prorate(amount: Decimal, used: Span, period: Span, by: By, currency: str) -> int:
    """The minor units of `amount`, which is for the whole `period`, that `used` of it costs.

    Raises `CallerError` `period_invalid` for a period without a day or second in it, or for a
    part that does not lie within it.
    """
    whole = period.count(by)
    if whole <= 0:
        raise CallerError(
            "period_invalid", f"period has not one whole {by} in it.", status=422, field="period"
        )
    if used.starts_at < period.starts_at or used.starts_at > period.ends_at:
        raise _outside("from", "from lies outside the period; send the part that lies within it.")
    if used.starts_at > used.ends_at:
        raise _outside("to", "to is before from.")
    if used.ends_at > period.ends_at:
        raise _outside("to", "to lies after the period; send the part that lies within it.")
    numerator, denominator = amount.as_integer_ratio()
    return divide_half_away(
        numerator * used.count(by) * 10 ** minor_digits(currency), denominator * whole
    )


def change(old: Decimal, new: Decimal, at: datetime, period: Span, by: By, currency: str) -> Change:
    """From `at` to the end of the period `new` holds, and `old`, paid in advance, is given back.

    Raises `CallerError` `period_invalid` where `at` lies outside the period.
    """
    if not period.starts_at <= at <= period.ends_at:
        raise _outside("at", "at lies outside the period.")
    rest = Span(at, period.ends_at)
    return Change(
        credit_minor=-prorate(old, rest, period, by, currency),
        charge_minor=prorate(new, rest, period, by, currency),
    )


def _outside(field: str, message: str) -> CallerError:
    return CallerError("period_invalid", message, status=422, field=field)
