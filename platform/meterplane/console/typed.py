"""Amounts and quantities as people type them into the console's forms."""

from decimal import Decimal

from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits

QUANTITY_DIGITS_MAX = 12


def minor(text: str, currency: str, field: str) -> int:
    """An amount in minor units. Raises `CallerError` naming `field`."""
    digits = minor_digits(currency)
    try:
        scaled = EXACT.scaleb(text_to_decimal(text.strip()), digits)
    except NotExact:
        scaled = None
    if scaled is None or scaled != scaled.to_integral_value():
        message = f"Write an amount in {currency}, with at most {digits} decimals."
        raise CallerError("credit_invalid", message, field=field)
    return int(scaled)


def quantity(text: str, field: str) -> Decimal:
    """An exact quantity. Raises `CallerError` naming `field`."""
    try:
        number = text_to_decimal(text.strip())
        scaled = EXACT.scaleb(number, QUANTITY_DIGITS_MAX)
    except NotExact:
        scaled = None
    if scaled is None or scaled != scaled.to_integral_value():
        message = f"Write a quantity as 100 or 12.5, with at most {QUANTITY_DIGITS_MAX} decimals."
        raise CallerError("credit_quantity_invalid", message, field=field)
    return number
