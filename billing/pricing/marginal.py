"""The highest price one more unit can have: what a request is held and shown at.

In pico, rounded up, so that a reservation never holds too little of it. What is owed by the period
and not by the unit is no request's to hold: a flat amount, the rest of a started package, the
rounding of a converted quantity, a minimum. A free or cheaper beginning is not counted on either.
"""

from decimal import Decimal
from fractions import Fraction
from math import ceil

from billing.pricing.price_model import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    PriceModel,
    Unit,
    Volume,
)
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import PICO

PRICE_PICO_MAX = 2**63 - 1  # PostgreSQL's bigint: nine million of the currency for one unit


def highest_unit_price_pico(model: PriceModel) -> int:
    """Raises `CallerError` `price_too_high` for more than is kept."""
    pico = ceil(_highest(model) * PICO)
    if pico > PRICE_PICO_MAX:
        raise CallerError("price_too_high", "A unit can cost 9,223,372 at most.", status=422)
    return pico


def plain_unit_price_pico(model: PriceModel) -> int | None:
    """The price of each unit, if that is all there is to the model; None if it is not."""
    if not isinstance(model, Unit) or model.free_units or model.unit_conversion is not None:
        return None
    if model.minimum_amount is not None or model.maximum_amount is not None:
        return None
    scaled = Fraction(model.unit_amount) * PICO
    return scaled.numerator if scaled.denominator == 1 else None


def unit_model(price_pico: int) -> Unit:
    """The model of a plain unit price."""
    return Unit(unit_amount=Decimal(price_pico).scaleb(-12).normalize())


def _highest(model: PriceModel) -> Fraction:
    per_unit = _per_priced_unit(model)
    conversion = model.unit_conversion
    return per_unit if conversion is None else per_unit / Fraction(conversion.divide_by)


def _per_priced_unit(model: PriceModel) -> Fraction:
    match model:
        case Unit():
            return Fraction(model.unit_amount)
        case Flat():
            return Fraction(0)
        case Graduated() | Volume():
            return max(Fraction(tier.unit_amount) for tier in model.tiers)
        case Package():
            return Fraction(model.package_amount) / Fraction(model.package_size)
        case Dynamic():
            return Fraction(model.multiplier)
