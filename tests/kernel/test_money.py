"""Integer money: exact, and rounded only where it says so."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.kernel import money

AMOUNTS = st.integers(min_value=-(10**24), max_value=10**24)


@pytest.mark.parametrize(
    ("amount_pico", "currency", "minor"),
    [
        (10**12, "USD", 100),
        (5 * 10**9, "USD", 1),  # half a cent goes away from zero
        (-5 * 10**9, "USD", -1),
        (5 * 10**9 - 1, "USD", 0),
        (5 * 10**11, "JPY", 1),
        (10**12, "KWD", 1000),
    ],
)
def test_a_line_is_rounded_half_away_from_zero(amount_pico, currency, minor):
    assert money.pico_to_minor_half_away(amount_pico, currency) == minor


@given(AMOUNTS, st.integers(min_value=1, max_value=10**12))
def test_rounding_is_never_off_by_more_than_half(numerator, denominator):
    rounded = money.divide_half_away(numerator, denominator)
    assert abs(Fraction(numerator, denominator) - rounded) <= Fraction(1, 2)
    assert money.divide_half_away(-numerator, denominator) == -rounded


@given(st.integers(min_value=0, max_value=10**24))
def test_a_reservation_never_holds_too_little(amount_pico):
    assert 0 <= money.pico_to_nano_ceil(amount_pico) * 1000 - amount_pico < 1000


@given(AMOUNTS)
def test_a_unit_price_survives_its_text(amount_pico):
    text = money.pico_to_text(amount_pico)
    assert "E" not in text
    assert money.text_to_pico(text) == amount_pico


@pytest.mark.parametrize("text", ["", "a", "NaN", "Infinity", "0.0000000000001", "1,5", "0x1"])
def test_what_is_no_price_is_refused(text):
    with pytest.raises(ValueError, match="decimal"):
        money.text_to_pico(text)


def test_an_unknown_currency_is_refused_not_guessed():
    with pytest.raises(money.UnknownCurrency, match="XXX"):
        money.minor_digits("XXX")


def test_amounts_are_written_in_the_currencys_digits():
    assert money.minor_to_text(1234, "USD") == "12.34"
    assert money.minor_to_text(1234, "JPY") == "1234"
    assert money.minor_to_text(-1234, "KWD") == "-1.234"
    assert money.nano_to_text(150) == "0.00000015"
