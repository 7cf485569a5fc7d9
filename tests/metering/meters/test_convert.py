"""Units are converted exactly and rounded once."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.catalog.meters import Conversion, Rounding
from meterplane.metering.meters.convert import converted, text_of


@pytest.mark.parametrize(
    ("value", "operation", "by", "rule", "digits", "expected"),
    [
        ("7200", "divide", "3600", "half_up", 3, "2"),
        ("1", "divide", "3", "half_up", 4, "0.3333"),
        ("1", "divide", "3", "ceil", 4, "0.3334"),
        ("2", "divide", "3", "floor", 4, "0.6666"),
        ("-1", "divide", "2", "half_up", 0, "-1"),
        ("1", "divide", "2", "half_up", 0, "1"),
        ("-1", "divide", "2", "ceil", 0, "0"),
        ("-1", "divide", "2", "floor", 0, "-1"),
        ("1", "divide", "8", "none", 0, "0.125"),
        ("0.1", "multiply", "0.1", "none", 0, "0.01"),
        ("99999999999999999999999999999999999999.999999999999999999", "multiply", "1000", "none", 0,
         "99999999999999999999999999999999999999999.999999999999999"),
        ("0", "multiply", "7", "ceil", 2, "0"),
    ],
)  # fmt: skip
def test_a_value_becomes(value, operation, by, rule, digits, expected):
    found = converted(Decimal(value), Conversion(operation, by), Rounding(rule, digits))
    assert found == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_without_a_rule_no_digit_is_lost(value):
    assert Fraction(converted(value, None, Rounding())) == Fraction(value)


@given(st.integers(-(10**30), 10**30), st.integers(0, 12))
def test_a_text_is_the_shortest_one(whole, digits):
    text = text_of(Fraction(whole, 10**digits))
    assert Fraction(text) == Fraction(whole, 10**digits)
    assert "." not in text or not text.endswith("0")
