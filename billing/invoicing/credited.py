"""How much of an invoice line a credit note gives back, and how much tax with it. Pure.

Guarantees: whatever sequence of credit notes a line has, by amounts, by quantities or mixed, they
never add up to more than the line; those that use it up add up to it exactly, and so do the parts
of its taxes: what notes give back of a tax is a rounded running total, so the last one absorbs what
rounding left. A note that gives back no money gives back no tax.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import divide_half_away, minor_to_text


@dataclass(frozen=True, slots=True)
class LineLeft:
    """A line and what earlier notes gave back of it; all amounts have the line's sign.

    `returned_minor`: of what credit paid, so much came back because a later invoice corrects it.
    """

    amount_minor: int
    quantity: Decimal
    credited_minor: int = 0
    credited_quantity: Decimal = Decimal()
    returned_minor: int = 0

    @property
    def left_minor(self) -> int:
        return self.amount_minor - self.credited_minor - self.returned_minor

    @property
    def quantity_left(self) -> Decimal:
        return self.quantity - self.credited_quantity


def by_amount(line: LineLeft, amount_minor: int, currency: str, field: str) -> int:
    """The amount, if the line has it left. Raises `CallerError` naming `field`."""
    if amount_minor == 0 or (amount_minor > 0) != (line.amount_minor > 0):
        sign = "above" if line.amount_minor > 0 else "below"
        raise CallerError(
            "credit_amount_invalid", f"What this line gives back is {sign} zero.", field=field
        )
    if abs(amount_minor) > abs(line.left_minor):
        raise CallerError(
            "credit_exceeds_line",
            f"Of this line {minor_to_text(line.left_minor, currency)} {currency} is left, of"
            f" {minor_to_text(line.amount_minor, currency)}.",
            status=409,
            field=field,
        )
    return amount_minor


def by_quantity(line: LineLeft, quantity: Decimal, field: str) -> int:
    """What the quantity is of the amount; the last of the quantity is all that is left.

    Raises `CallerError` naming `field`.
    """
    if not quantity.is_finite() or quantity <= 0:
        raise CallerError("credit_quantity_invalid", "A quantity is above zero.", field=field)
    if quantity > line.quantity_left:
        raise CallerError(
            "credit_exceeds_line",
            f"Of this line {line.quantity_left:f} is left, of {line.quantity:f}.",
            status=409,
            field=field,
        )
    if quantity == line.quantity_left:
        amount = line.left_minor
    else:
        before = _share(line.amount_minor, line.credited_quantity, line.quantity)
        until = _share(line.amount_minor, line.credited_quantity + quantity, line.quantity)
        amount = min(until - before, line.left_minor, key=abs)
    if amount == 0:
        raise CallerError(
            "credit_amount_zero",
            "This quantity is worth less than the smallest unit of the currency.",
            field=field,
        )
    return amount


@dataclass(frozen=True, slots=True)
class TaxedLine:
    """What a line bears of a tax, what is left of the line, and what of it a note gives back."""

    tax_minor: int
    left: LineLeft
    given_minor: int


def tax_part(tax_minor: int, noted_minor: int, lines: Iterable[TaxedLine]) -> int:
    """What of a tax goes back with a note; `noted_minor` of it went back with earlier ones.

    `lines` are all of the invoice. Each is rounded for itself, so they may miss a cent that the
    lines of credit and of what it paid have together: no note gives back more than is left.
    """
    so_far, subtotal_minor = 0, 0
    for each in lines:
        subtotal_minor += each.given_minor
        credited_minor = each.left.credited_minor + each.given_minor
        if credited_minor:
            so_far += _ratio(each.tax_minor * credited_minor, each.left.amount_minor)
    if not subtotal_minor:
        return 0
    sign = -1 if tax_minor < 0 else 1
    return sign * max(0, min(sign * so_far, sign * tax_minor) - sign * noted_minor)


def _share(amount_minor: int, quantity: Decimal, of: Decimal) -> int:
    part = Fraction(quantity) / Fraction(of)
    exact = amount_minor * part
    return divide_half_away(exact.numerator, exact.denominator)


def _ratio(numerator: int, denominator: int) -> int:
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    return divide_half_away(numerator, denominator)
