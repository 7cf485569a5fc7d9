"""The sandbox's one rounding: whole quotients, half away from zero. Pure."""


def quotient(numerator: int, denominator: int) -> int:
    """`numerator / denominator` to the nearest whole number; halves go away from zero."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    whole = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -whole if numerator < 0 else whole
