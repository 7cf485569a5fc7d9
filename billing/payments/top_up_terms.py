"""How much credit may be paid for at once. Pure.

The provider has bounds of its own, some of which change with exchange rates: what it refuses, it
says why.
"""

from decimal import Decimal

from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits, minor_to_text

# In whole units: above the least charge of each, and such that fees are a small part of it.
LEAST = 5
LEAST_OF = {"CZK": 100, "MXN": 100, "INR": 500, "SEK": 50, "NOK": 50, "DKK": 50, "PLN": 20,
            "JPY": 500, "KRW": 5_000, "CLP": 5_000, "VND": 100_000}  # fmt: skip
MOST_TIMES_LEAST = 2_000  # 10,000 of USD; six digits before the point at most are charged at once
THIRD_DIGIT_STEP = 10  # of three digits cards charge two


def least_minor(currency: str) -> int:
    """The smallest top-up."""
    return int(LEAST_OF.get(currency, LEAST) * 10 ** minor_digits(currency))


def most_minor(currency: str) -> int:
    """The largest top-up."""
    return least_minor(currency) * MOST_TIMES_LEAST


def top_up_minor(text: str, currency: str, field: str = "amount") -> int:
    """An amount to be charged, as it is written. Raises `CallerError` `top_up_invalid`."""
    minor = amount_minor(text, currency, field)
    least, most = least_minor(currency), most_minor(currency)
    if not least <= minor <= most:
        raise CallerError(
            "top_up_invalid",
            f"Choose {minor_to_text(least, currency)} to {minor_to_text(most, currency)} "
            f"{currency}.",
            field=field,
        )
    if minor_digits(currency) > 2 and minor % THIRD_DIGIT_STEP:
        raise CallerError(
            "top_up_invalid", f"Cards are charged two decimals of {currency}.", field=field
        )
    return minor


def amount_minor(text: str, currency: str, field: str) -> int:
    """Any amount above zero. Raises `CallerError` `top_up_invalid`."""
    digits = minor_digits(currency)
    try:
        scaled: Decimal | None = EXACT.scaleb(text_to_decimal(text), digits)
    except NotExact:
        scaled = None
    if scaled is None or scaled != scaled.to_integral_value() or scaled <= 0:
        raise CallerError(
            "top_up_invalid",
            f"{text[:40]!r} is no amount in {currency}: write a number above zero with at most "
            f"{digits} decimals.",
            field=field,
        )
    if scaled > Decimal(most_minor(currency) * MOST_TIMES_LEAST):
        raise CallerError("top_up_invalid", "That is more than anybody pays.", field=field)
    return int(scaled)
