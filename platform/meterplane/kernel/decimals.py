"""Exact decimals: how they enter as text, how they are reckoned with, and how they leave.

Guarantees: what is read has at most `WHOLE_DIGITS_MAX` digits before and `FRACTION_DIGITS_MAX`
after its point, so that in `EXACT` every sum and product of the product is exact, or raises. What
leaves is one text for one value: never an exponent, no zero that says nothing, no `-0`.
"""

import re
from decimal import (
    ROUND_HALF_UP,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)

WHOLE_DIGITS_MAX = 38
FRACTION_DIGITS_MAX = 18
TEXT_MAX = 64  # 38 + 18 digits, a sign, a point and an exponent

# A quantity of 56 digits times a price of 56, times 10 ** 18 to round at, summed over some hundred
# million terms: 112 + 18 + 8. Anything that would have to be rounded raises instead.
EXACT = Context(
    prec=160,
    traps=[Clamped, DivisionByZero, FloatOperation, Inexact, InvalidOperation, Overflow, Underflow],
)
ZERO = Decimal(0)

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")


class NotExact(ValueError):
    """A text is no decimal number that is kept here. The message ends a sentence "x …"."""


def text_to_decimal(text: str) -> Decimal:
    """`"0.00000015"`, `"12"`, `"1.5e-7"` as a number. Raises `NotExact`."""
    if len(text) > TEXT_MAX:
        raise NotExact(_TOO_LONG)
    if _NUMBER.fullmatch(text) is None:
        raise NotExact('must be decimal text such as "12" or "0.00000015"')
    number = Decimal(text)
    if not number:
        return ZERO
    exponent = number.as_tuple().exponent
    if exponent < -FRACTION_DIGITS_MAX:  # type: ignore[operator]  # finite: it matched
        number = number.normalize(EXACT)  # 0.10000000000000000000 is 0.1
        exponent = number.as_tuple().exponent
    if number.adjusted() >= WHOLE_DIGITS_MAX or exponent < -FRACTION_DIGITS_MAX:  # type: ignore[operator]
        raise NotExact(_TOO_LONG)
    return number


def decimal_to_text(number: Decimal) -> str:
    """The one text of a value: `Decimal("1E+2")` -> `"100"`, `Decimal("0.10")` -> `"0.1"`."""
    if not number:
        return "0"
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled_half_away(number: Decimal, digits: int) -> int:
    """`number` in units of 10 ** -digits, rounded halves away from zero: `10.275, 2` -> `1028`."""
    return int(EXACT.scaleb(number, digits).to_integral_value(ROUND_HALF_UP))


_TOO_LONG = (
    f"has more than {WHOLE_DIGITS_MAX} digits before or {FRACTION_DIGITS_MAX} after its point"
)
