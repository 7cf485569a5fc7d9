"""Price models as immutable values. Amounts are of the currency they are priced in, exact."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from meterplane.kernel.decimals import ZERO

Rounding = Literal["ceil", "floor", "half_up"]


@dataclass(frozen=True, slots=True)
class UnitConversion:
    """What is priced is the quantity divided by `divide_by`, rounded once to `decimals` digits."""

    divide_by: Decimal
    rounding: Rounding
    decimals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What every model may have: bounds of the amount, and a conversion of the quantity."""

    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None
    unit_conversion: UnitConversion | None = None


@dataclass(frozen=True, slots=True)
class Unit(Bounds):
    """Each unit beyond the free ones costs the same."""

    unit_amount: Decimal
    free_units: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Flat(Bounds):
    """One amount, whatever the quantity, also of none."""

    amount: Decimal


@dataclass(frozen=True, slots=True)
class Tier:
    """From where the tier before ends up to `up_to`, which is inside; None is without end."""

    up_to: Decimal | None
    unit_amount: Decimal = ZERO
    flat_amount: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Graduated(Bounds):
    """Each part of the quantity at its own tier. `up_to` ascends, and the last one is None.

    A tier's flat amount is due once its tier is reached; the first tier's always.
    """

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Volume(Bounds):
    """The whole quantity at the tier it falls in, plus the flat amount of that one tier."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Package(Bounds):
    """So much for each package that is started by what is beyond the free units."""

    package_size: Decimal
    package_amount: Decimal
    free_units: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Dynamic(Bounds):
    """The quantity is itself an amount, the cost that the events carried; it is marked up."""

    multiplier: Decimal


PriceModel: TypeAlias = Unit | Flat | Graduated | Volume | Package | Dynamic
