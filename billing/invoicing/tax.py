"""Taxes of an invoice: lines and rates to tax amounts, as one pure function.

Guarantees: each tax is rounded once, over the whole invoice, halves away from zero; what a line
bears of it is its exact share to the whole minor unit by largest remainder, so the shares add up to
the tax, whatever the order of the lines and whatever their signs. The net amount and the included
taxes add up to the lines; the subtotal and the taxes on top add up to the total.

With rates on top of prices (exclusive) and in them (inclusive) together, both are of the same net
amount: a line of 120.00 with 20 % in it is 100.00 net, and another 5 % on top are 5.00.

Does not know who is exempt or why: whoever asks passes no rates then, and prices that contain a
tax stay what they are.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import divide_half_away

PERCENT_DIGITS = 4
WHOLE = 100 * 10**PERCENT_DIGITS  # 100 % in the units a percentage is counted in

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rate:
    """A tax of `percentage` per cent, exact to `PERCENT_DIGITS` digits."""

    id: UUID
    name: str
    percentage: Decimal
    mode: Literal["exclusive", "inclusive"]
    country: str = ""

    @property
    def units(self) -> int:
        """The percentage as a whole number: 19 % are 190,000."""
        scaled = self.percentage.scaleb(PERCENT_DIGITS)
        ensure(scaled == scaled.to_integral_value(), f"{self.percentage} % has too many digits")
        return int(scaled)


@dataclass(frozen=True, slots=True)
class TaxAmount(Generic[K]):
    """What one rate is of the invoice, and of each of its lines."""

    rate: Rate
    taxable_minor: int
    amount_minor: int
    by_line: Mapping[K, int]


@dataclass(frozen=True, slots=True)
class Taxed(Generic[K]):
    """Lines with their taxes. `subtotal_minor` is the sum of the lines as they stand."""

    subtotal_minor: int
    exclusive_minor: int
    inclusive_minor: int
    taxes: tuple[TaxAmount[K], ...]

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor + self.exclusive_minor


def tax(lines: Mapping[K, int], rates: Sequence[Rate]) -> Taxed[K]:
    """Tax `lines`, amounts in minor units by their keys, which can be ordered, at `rates`."""
    subtotal = sum(lines.values())
    gross_units = WHOLE + sum(rate.units for rate in rates if rate.mode == "inclusive")
    amounts = {rate.id: divide_half_away(subtotal * rate.units, gross_units) for rate in rates}
    ensure(len(amounts) == len(rates), "a rate applies once")
    inclusive = sum(amounts[rate.id] for rate in rates if rate.mode == "inclusive")
    return Taxed(
        subtotal_minor=subtotal,
        exclusive_minor=sum(amounts.values()) - inclusive,
        inclusive_minor=inclusive,
        taxes=tuple(
            TaxAmount(
                rate,
                subtotal - inclusive,
                amounts[rate.id],
                _shares(lines, rate.units, gross_units, amounts[rate.id]),
            )
            for rate in rates
        ),
    )


def shares_of(amount: int, lines: Mapping[K, int]) -> dict[K, int]:
    """What each line bears of a tax on all of them, whose sum is above zero."""
    return _shares(lines, amount, sum(lines.values()), amount)


def _shares(lines: Mapping[K, Any], units: int, gross_units: int, amount: int) -> dict[K, int]:
    """Each line's exact share rounded down, and one more for those that lost most; of equals, for
    the smaller key."""
    shares: dict[K, int] = {}
    losses: list[tuple[int, Any]] = []
    for key, line in lines.items():
        shares[key], loss = divmod(line * units, gross_units)
        losses.append((-loss, key))
    missing = amount - sum(shares.values())
    ensure(0 <= missing <= len(shares), "a rounded sum is near the sum of what was rounded down")
    for _, key in sorted(losses)[:missing]:
        shares[key] += 1
    return shares
