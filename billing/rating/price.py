"""What a quantity costs under a price model: the one place where a price becomes an amount.

Guarantees: a pure function, exact up to its single rounding, halves away from zero, to the
currency's minor unit. The lines add up to `exact` to the last digit. The result depends on the
quantity alone, not on how it came together.

Order: the quantity is converted, then priced, then the maximum caps the sum, and the minimum lifts
it where nothing more can come (`final`). A maximum and a minimum are lines of their own, so that
what they did can be read.

Does not know what was billed before, or of whom: an interim invoice or a correction is the price
of the whole quantity so far, less what was billed of it.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Literal

from billing.pricing.price_model import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    PriceModel,
    Tier,
    Unit,
    UnitConversion,
    Volume,
)
from meterplane.kernel.decimals import EXACT, WHOLE_DIGITS_MAX, ZERO, scaled_half_away
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits

LineKind = Literal["usage", "free_units", "minimum_amount", "maximum_amount"]


@dataclass(frozen=True, slots=True)
class TierLine:
    """One part of a price, exact.

    `amount` is `quantity` times `unit_amount` plus `flat_amount`; where there is no `unit_amount`
    it is the flat amount, or that of the packages started. `tier` counts from 1, None where the
    model has none. A maximum's line is negative; a bound's line has no quantity.
    """

    tier: int | None
    quantity: Decimal
    unit_amount: Decimal | None
    flat_amount: Decimal
    amount: Decimal
    kind: LineKind = "usage"


@dataclass(frozen=True, slots=True)
class Priced:
    """The sum of the lines, exact and rounded once. `quantity` is what was priced: converted.

    `true_up_minor` is the part of `amount_minor` that only the minimum asks for.
    """

    exact: Decimal
    amount_minor: int
    lines: tuple[TierLine, ...]
    quantity: Decimal
    true_up_minor: int = 0


def price(
    model: PriceModel, quantity: Decimal | int, currency: str, *, final: bool = False
) -> Priced:
    """Price the whole `quantity` of a period. `final`: nothing more will come of it, so that the
    model's minimum is due.

    Raises `CallerError` `quantity_invalid` for a quantity that is negative, not finite or of more
    than 38 digits, and `UnknownCurrency`.
    """
    digits = minor_digits(currency)
    with localcontext(EXACT):
        priced = _checked(quantity)
        if model.unit_conversion is not None:
            priced = converted(priced, model.unit_conversion)
        lines = _lines(model, priced)
        exact = lines[0].amount if len(lines) == 1 else sum((each.amount for each in lines), ZERO)
        if (most := model.maximum_amount) is not None and exact > most:
            lines.append(_bound(most - exact, "maximum_amount"))
            exact = most
        amount_minor = scaled_half_away(exact, digits)
        true_up_minor = 0
        if final and (least := model.minimum_amount) is not None and exact < least:
            lines.append(_bound(least - exact, "minimum_amount"))
            exact, usage_minor = least, amount_minor
            amount_minor = scaled_half_away(exact, digits)
            # Not rounded for itself: with what was billed for usage it must be the minimum.
            true_up_minor = amount_minor - usage_minor
        return Priced(exact, amount_minor, tuple(lines), priced, true_up_minor)


def converted(quantity: Decimal, conversion: UnitConversion) -> Decimal:
    """`quantity / divide_by`, rounded once by the conversion's rule. Not of negative quantities."""
    with localcontext(EXACT):
        scaled = quantity.scaleb(conversion.decimals)
        whole, rest = divmod(scaled, conversion.divide_by)
        match conversion.rounding:
            case "ceil":
                up = rest > 0
            case "floor":
                up = False
            case "half_up":
                up = rest * 2 >= conversion.divide_by
        return (whole + 1 if up else whole).scaleb(-conversion.decimals)


def _checked(quantity: Decimal | int) -> Decimal:
    number = Decimal(quantity)
    if not number.is_finite() or number < ZERO or number.adjusted() >= WHOLE_DIGITS_MAX:
        raise CallerError(
            "quantity_invalid",
            f"A quantity is a number of 0 or more, of at most {WHOLE_DIGITS_MAX} digits before its"
            " point.",
            status=422,
            field="quantity",
        )
    return number


def _lines(model: PriceModel, quantity: Decimal) -> list[TierLine]:
    match model:
        case Unit():
            lines, charged = _free(quantity, model.free_units)
            amount = charged * model.unit_amount
            return [*lines, TierLine(None, charged, model.unit_amount, ZERO, amount)]
        case Graduated():
            return _graduated(model.tiers, quantity)
        case Volume():
            return [_volume(model.tiers, quantity)]
        case Flat():
            return [TierLine(None, quantity, None, model.amount, model.amount)]
        case Package():
            lines, charged = _free(quantity, model.free_units)
            started, rest = divmod(charged, model.package_size)
            amount = (started + 1 if rest else started) * model.package_amount
            return [*lines, TierLine(None, charged, None, ZERO, amount)]
        case Dynamic():
            amount = quantity * model.multiplier
            return [TierLine(None, quantity, model.multiplier, ZERO, amount)]


def _free(quantity: Decimal, free_units: Decimal) -> tuple[list[TierLine], Decimal]:
    """The line of what is free, if anything is, and what is to be paid for."""
    free = min(quantity, free_units)
    if not free:
        return [], quantity
    return [TierLine(None, free, ZERO, ZERO, ZERO, "free_units")], quantity - free


def _graduated(tiers: tuple[Tier, ...], quantity: Decimal) -> list[TierLine]:
    lines: list[TierLine] = []
    below = ZERO
    for number, tier in enumerate(tiers, 1):
        if number > 1 and quantity <= below:
            break
        up_to = tier.up_to
        part = (quantity if up_to is None or quantity < up_to else up_to) - below
        amount = part * tier.unit_amount + tier.flat_amount
        lines.append(TierLine(number, part, tier.unit_amount, tier.flat_amount, amount))
        if up_to is not None:
            below = up_to
    return lines


def _volume(tiers: tuple[Tier, ...], quantity: Decimal) -> TierLine:
    number, tier = next(
        (number, tier)
        for number, tier in enumerate(tiers, 1)
        if tier.up_to is None or quantity <= tier.up_to
    )
    amount = quantity * tier.unit_amount + tier.flat_amount
    return TierLine(number, quantity, tier.unit_amount, tier.flat_amount, amount)


def _bound(amount: Decimal, kind: LineKind) -> TierLine:
    return TierLine(None, ZERO, None, amount, amount, kind)
