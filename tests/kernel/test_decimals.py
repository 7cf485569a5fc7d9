"""Decimal text in, decimal text out."""

from decimal import Decimal, Inexact, localcontext

import pytest

from meterplane.kernel.decimals import (
    EXACT,
    NotExact,
    decimal_to_text,
    scaled_half_away,
    text_to_decimal,
)

SAME = """
0                        0
-0                       0
-0.000                   0
0e99                     0
007                      7
1.50                     1.5
100                      100
1e2                      100
1.5E-7                   0.00000015
-12.340                  -12.34
0.10000000000000000000000000000  0.1
99999999999999999999999999999999999999  99999999999999999999999999999999999999
0.000000000000000001     0.000000000000000001
"""


@pytest.mark.parametrize(("sent", "text"), [row.split() for row in SAME.strip().splitlines()])
def test_a_number_has_one_text(sent, text):
    number = text_to_decimal(sent)
    assert decimal_to_text(number) == text
    assert number.is_signed() == text.startswith("-"), "zero has no sign"


@pytest.mark.parametrize(
    "sent",
    [
        "", "-", ".", "1.", ".1", "+1", "1_0", " 1", "1 ", "1\n", "NaN", "Infinity", "-inf", "sNaN",
        "0x1", "1e", "1e1000", "1e38", "1" * 39, "1e-19", "0." + "0" * 18 + "1", "1" * 65, "१",
    ],
)  # fmt: skip
def test_what_is_no_number_of_ours_is_refused(sent):
    with pytest.raises(NotExact):
        text_to_decimal(sent)


@pytest.mark.parametrize(
    ("number", "digits", "units"),
    [
        ("10.275", 2, 1028), ("-10.275", 2, -1028), ("10.2749999", 2, 1027), ("0.5", 0, 1),
        ("-0.5", 0, -1), ("1.5", 0, 2), ("2.5", 0, 3), ("-0.004", 2, 0), ("1e20", 3, 10**23),
        ("0.0005", 3, 1), ("9" * 38 + ".995", 2, 10**40),
    ],
)  # fmt: skip
def test_halves_go_away_from_zero(number, digits, units):
    assert scaled_half_away(Decimal(number), digits) == units


def test_what_would_have_to_be_rounded_raises():
    with localcontext(EXACT), pytest.raises(Inexact):
        Decimal(1) / 3
