"""Money and counts as people read them.

Amounts arrive as integers (nano or minor units) and leave as text; nothing here feeds a
calculation. `exact` shows every digit an amount has; `rounded` is the one display rounding, half
away from zero, and says so by its name. Does not know about locales other than English.
"""

from dataclasses import dataclass

from meterplane.kernel import money

SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩", "BRL": "R$"}
NANO_DIGITS = 9
PICO_DIGITS = 12
NOTHING = "\N{EN DASH}"  # stands where there is no value


@dataclass(frozen=True, slots=True)
class ShownAmount:
    """`main` up to the currency's minor unit, `rest` the digits below it (may be empty)."""

    main: str
    rest: str

    def __str__(self) -> str:
        return self.main + self.rest


def exact(amount: int, scale: int, currency: str, decimals: int | None = None) -> ShownAmount:
    """An amount of `10**-scale` units with all its digits, or with `decimals` when it has fewer.

    `decimals` lines up a column: give `decimals_needed` of its widest amount.
    """
    minor = money.minor_digits(currency)
    wanted = max(minor, decimals or 0, decimals_needed([amount], scale))
    whole, fraction = divmod(abs(amount), 10**scale)
    digits = f"{fraction:0{scale}d}"[:wanted].ljust(wanted, "0") if scale else "0" * wanted
    sign = "\N{MINUS SIGN}" if amount < 0 else ""
    head = f"{sign}{symbol(currency)}{whole:,}"
    return ShownAmount(head + (f".{digits[:minor]}" if minor else ""), _rest(digits, minor))


def _rest(digits: str, minor: int) -> str:
    if len(digits) <= minor:
        return ""
    return digits[minor:] if minor else f".{digits}"


def decimals_needed(amounts: list[int], scale: int) -> int:
    """How many decimals show every one of these amounts without rounding."""
    needed = 0
    for amount in amounts:
        digits = f"{abs(amount) % 10**scale:0{scale}d}".rstrip("0") if scale else ""
        needed = max(needed, len(digits))
    return needed


def rounded(amount_nano: int, currency: str) -> str:
    """A figure for a card: minor units from one whole unit up, two digits finer below."""
    digits = money.minor_digits(currency)
    if 0 < abs(amount_nano) < money.NANO:
        digits += 2
    step = 10 ** (NANO_DIGITS - digits)
    if 0 < abs(amount_nano) < step:
        return f"< {exact(1, digits, currency)}"
    return str(exact(money.divide_half_away(amount_nano, step), digits, currency, digits))


def minor(amount_minor: int, currency: str) -> str:
    """An invoice's amount: `1234` USD is `$12.34`."""
    return str(exact(amount_minor, money.minor_digits(currency), currency))


def symbol(currency: str) -> str:
    """The sign in front of an amount; a currency without one of its own is spelled out."""
    return SYMBOLS.get(currency, f"{currency} ")


def milliseconds(duration_ms: int) -> str:
    """`840 ms`, `1.24 s`, `3 min 5 s`."""
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    if duration_ms < 60_000:
        return f"{duration_ms // 1000}.{duration_ms % 1000 // 10:02d} s"
    minutes, seconds = divmod(duration_ms // 1000, 60)
    return f"{minutes} min {seconds} s"


def microseconds(duration_us: int) -> str:
    """`0.84 ms` below ten milliseconds, then as `milliseconds`; what is lost is cut off."""
    if duration_us < 10_000:
        return f"{duration_us // 1000}.{duration_us % 1000 // 10:02d} ms"
    return milliseconds(duration_us // 1000)


def percent(part: int, whole: int) -> str:
    """`part` of `whole` with one decimal, halves up; `0 %` of nothing."""
    if whole == 0 or part == 0:
        return "0 %"
    tenths = money.divide_half_away(part * 1000, whole)
    return f"{tenths // 10}.{tenths % 10} %" if tenths else "< 0.1 %"
