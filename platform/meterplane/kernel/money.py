"""Integer money. Unit prices are in pico (1e-12), amounts in nano (1e-9), invoices in minor units.

A quantity times a unit price is exact in pico. Rounding happens in three named places only:
`pico_to_nano_ceil` for reservations (never hold too little), `pico_to_nano_half_away` for the shown
cost of one request, and `pico_to_minor_half_away`, once per invoice line.
"""

from collections.abc import Sequence
from decimal import Decimal

PICO = 10**12
NANO = 10**9
PICO_PER_NANO = 1000

# ISO 4217 minor-unit digits. A currency that is not here is refused, never guessed.
MINOR_DIGITS = {
    "USD": 2, "EUR": 2, "GBP": 2, "CHF": 2, "CAD": 2, "AUD": 2, "SEK": 2, "NOK": 2, "DKK": 2,
    "PLN": 2, "CZK": 2, "INR": 2, "SGD": 2, "BRL": 2, "MXN": 2,
    "JPY": 0, "KRW": 0, "VND": 0, "CLP": 0,
    "KWD": 3, "BHD": 3, "JOD": 3, "OMR": 3, "TND": 3,
}  # fmt: skip


class UnknownCurrency(ValueError):
    """The currency has no entry in `MINOR_DIGITS`."""


def minor_digits(currency: str) -> int:
    """Digits after the point of `currency` (ISO 4217, upper case). Raises `UnknownCurrency`."""
    try:
        return MINOR_DIGITS[currency]
    except KeyError:
        raise UnknownCurrency(
            f"{currency!r} is not a currency this installation bills in"
        ) from None


def divide_half_away(numerator: int, denominator: int) -> int:
    """`numerator / denominator` rounded to an integer, halves away from zero."""
    quotient, remainder = divmod(abs(numerator), denominator)
    if remainder * 2 >= denominator:
        quotient += 1
    return quotient if numerator >= 0 else -quotient


def pico_to_nano_ceil(amount_pico: int) -> int:
    """Nano-units, rounded up: what a reservation must hold."""
    return -(-amount_pico // PICO_PER_NANO)


def pico_to_nano_half_away(amount_pico: int) -> int:
    """Nano-units, halves away from zero: the shown cost of one request."""
    return divide_half_away(amount_pico, PICO_PER_NANO)


def pico_to_minor_half_away(amount_pico: int, currency: str) -> int:
    """Minor units of `currency`, halves away from zero: the one rounding of an invoice line."""
    return divide_half_away(amount_pico, 10 ** (12 - minor_digits(currency)))


def split_by_largest_remainder(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` in whole parts as near to the weights as can be; the parts add up to it exactly.

    Each part is rounded down, and what is missing goes, one each, to those that lost most; of
    equals to the first. Weights are not negative; if all are 0 they count as equal.
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [amount * weight // whole for weight in weights]
    by_loss = sorted(range(len(weights)), key=lambda n: (-(amount * weights[n] % whole), n))
    for n in by_loss[: amount - sum(parts)]:
        parts[n] += 1
    return parts


def minor_to_nano(amount_minor: int, currency: str) -> int:
    """Nano-units, exact: no currency has more than nine digits."""
    return int(amount_minor * 10 ** (9 - minor_digits(currency)))


def minor_to_text(amount_minor: int, currency: str) -> str:
    """`1234, "USD"` -> `"12.34"`: what a JSON edge carries."""
    digits = minor_digits(currency)
    if not digits:
        return str(amount_minor)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{rest:0{digits}}"


def nano_to_text(amount_nano: int) -> str:
    """`150` -> `"0.00000015"`, a plain decimal string."""
    return _plain(Decimal(amount_nano).scaleb(-9))


def pico_to_text(amount_pico: int) -> str:
    """A unit price as a plain decimal string, never in scientific notation."""
    return _plain(Decimal(amount_pico).scaleb(-12))


def text_to_pico(text: str) -> int:
    """`"0.00000015"` -> `150000`. Raises ValueError unless a number of at most 12 decimals."""
    try:
        scaled = Decimal(text).scaleb(12)
    except ArithmeticError:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise ValueError(f"{text!r} is not an amount with at most 12 decimals")
    return int(scaled)


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
