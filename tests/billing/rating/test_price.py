"""The pricing function as rating calls it. What things cost is in `calculator/price_table.py`."""

from decimal import Context, Decimal

import pytest

from billing.pricing.price_model import Flat, Graduated, Tier, Unit, UnitConversion
from billing.rating.price import TierLine, price
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import UnknownCurrency

STAIRS = Graduated((Tier(Decimal(5), Decimal(0), Decimal(100)), Tier(None, Decimal("0.015"))))


@pytest.mark.parametrize("quantity", [7, Decimal(7), Decimal("7.000")])
def test_a_line_says_what_it_was_reckoned_from(quantity):
    found = price(STAIRS, quantity, "USD")
    assert (found.exact, found.amount_minor, found.quantity) == (Decimal("100.03"), 10003, 7)
    assert found.lines == (
        TierLine(1, Decimal(5), Decimal(0), Decimal(100), Decimal(100)),
        TierLine(2, Decimal(2), Decimal("0.015"), Decimal(0), Decimal("0.03")),
    )


@pytest.mark.parametrize(
    "quantity",
    [-1, 10**38, *map(Decimal, ("-0.001", "NaN", "sNaN", "Infinity"))],
)
def test_a_quantity_that_nobody_can_have_used_is_refused(quantity):
    with pytest.raises(CallerError) as refused:
        price(Flat(Decimal(1)), quantity, "USD")
    assert (refused.value.code, refused.value.field) == ("quantity_invalid", "quantity")


def test_an_unknown_currency_is_refused():
    with pytest.raises(UnknownCurrency):
        price(Flat(Decimal(1)), 1, "XAU")


def test_the_largest_numbers_are_exact_to_the_last_digit():
    most = Decimal("9" * 38 + "." + "9" * 18)
    model = Unit(most, unit_conversion=UnitConversion(Decimal("1e-18"), "half_up", 18))
    found = price(model, most, "KWD")
    units = int("9" * 56)
    assert found.exact == Decimal(units * units).scaleb(-18, Context(prec=200))
    assert found.amount_minor == (units * units * 1000 * 2 + 10**18) // (2 * 10**18)


def test_the_minimum_is_due_only_where_nothing_more_can_come():
    model = Unit(Decimal(2), minimum_amount=Decimal(30))
    assert price(model, 3, "USD").amount_minor == 600
    final = price(model, 3, "USD", final=True)
    assert (final.amount_minor, final.true_up_minor) == (3000, 2400)
    assert final.lines[-1].kind == "minimum_amount"
