"""Amounts as people read them."""

import pytest

from meterplane.kernel import amounts


@pytest.mark.parametrize(
    ("nano", "currency", "decimals", "shown"),
    [
        (0, "USD", None, "$0.00"),
        (1, "USD", None, "$0.000000001"),
        (1_500_000_000, "USD", None, "$1.50"),
        (1_500_000_000, "USD", 6, "$1.500000"),
        (12_345_678_900_000, "EUR", None, "€12,345.6789"),
        (-250_000_000, "GBP", None, "\N{MINUS SIGN}£0.25"),
        (3_000_000_000, "JPY", None, "¥3"),
        (3_250_000_000, "JPY", None, "¥3.25"),
        (1_234_000_000, "KWD", None, "KWD 1.234"),
        (1_000_000_000, "CHF", None, "CHF 1.00"),
    ],
)
def test_an_exact_amount_loses_no_digit(nano, currency, decimals, shown):
    assert str(amounts.exact(nano, amounts.NANO_DIGITS, currency, decimals)) == shown


def test_what_lies_below_the_minor_unit_stands_apart():
    shown = amounts.exact(1_234_567_800, amounts.NANO_DIGITS, "USD")
    assert (shown.main, shown.rest) == ("$1.23", "45678")
    shown = amounts.exact(1_500_000_000, amounts.NANO_DIGITS, "JPY")
    assert (shown.main, shown.rest) == ("¥1", ".5")


@pytest.mark.parametrize(
    ("nano", "currency", "shown"),
    [
        (0, "USD", "$0.00"),
        (1, "USD", "< $0.0001"),
        (50_000, "USD", "< $0.0001"),
        (150_000, "USD", "$0.0002"),
        (999_949_999, "USD", "$0.9999"),
        (1_994_999_999, "USD", "$1.99"),
        (1_995_000_000, "USD", "$2.00"),
        (-1_995_000_000, "USD", "\N{MINUS SIGN}$2.00"),
        (2_500_000_000, "JPY", "¥3"),
        (1_234_567_890_000, "USD", "$1,234.57"),
    ],
)
def test_a_figure_is_rounded_once_halves_away_from_zero(nano, currency, shown):
    assert amounts.rounded(nano, currency) == shown


def test_columns_line_up_on_their_widest_amount():
    column = [1_500_000_000, 1_000, 20]
    decimals = amounts.decimals_needed(column, amounts.NANO_DIGITS)
    assert decimals == 8
    assert {len(str(amounts.exact(each, 9, "USD", decimals))) for each in column} == {11}


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "0 %"), (0, 9, "0 %"), (1, 3, "33.3 %"), (1, 10_000, "< 0.1 %"), (5, 5, "100.0 %")],
)
def test_shares(part, whole, shown):
    assert amounts.percent(part, whole) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0 ms"), (999, "999 ms"), (1_240, "1.24 s"), (59_999, "59.99 s"), (185_000, "3 min 5 s")],
)
def test_durations(ms, shown):
    assert amounts.milliseconds(ms) == shown


@pytest.mark.parametrize(
    ("us", "shown"), [(0, "0.00 ms"), (847, "0.84 ms"), (9_999, "9.99 ms"), (1_240_000, "1.24 s")]
)
def test_short_durations(us, shown):
    assert amounts.microseconds(us) == shown


def test_an_invoices_amount():
    assert amounts.minor(123_456, "USD") == "$1,234.56"
    assert amounts.minor(1_234, "JPY") == "¥1,234"
