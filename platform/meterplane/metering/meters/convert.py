"""Units of a meter: multiply or divide, then round once, in exact arithmetic.

`Fraction` keeps a quotient exact until it is rounded; no context's precision cuts it.
"""

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from meterplane.catalog.meters import Conversion, Rounding
from meterplane.kernel.invariant import ensure


def converted(value: Decimal | int, conversion: Conversion | None, rounding: Rounding) -> str:
    """The value in the meter's unit, as decimal text with no more digits than it has."""
    exact = Fraction(value)
    if conversion is not None:
        by = Fraction(conversion.by)
        exact = exact * by if conversion.operation == "multiply" else exact / by
    return text_of(_rounded(exact, rounding))


def text_of(exact: Fraction) -> str:
    """All digits of a fraction that has an end."""
    digits, rest = 0, exact.denominator
    for prime in (2, 5):
        times = 0
        while rest % prime == 0:
            rest, times = rest // prime, times + 1
        digits = max(digits, times)
    ensure(rest == 1, f"{exact} has an end: a meter that divides so is refused without rounding")
    whole = abs(exact.numerator) * 10**digits // exact.denominator
    sign = "-" if exact < 0 else ""
    if digits == 0:
        return f"{sign}{whole}"
    text = f"{whole:0{digits + 1}d}"
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def _rounded(exact: Fraction, rounding: Rounding) -> Fraction:
    scale = 10**rounding.digits
    match rounding.rule:
        case "none":
            return exact
        case "ceil":
            return Fraction(ceil(exact * scale), scale)
        case "floor":
            return Fraction(floor(exact * scale), scale)
        case "half_up":
            away = floor(abs(exact) * scale + Fraction(1, 2))
            return Fraction(away if exact >= 0 else -away, scale)
