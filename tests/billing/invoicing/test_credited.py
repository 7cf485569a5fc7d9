"""What credit notes give back of a line: tables, and any sequence of them."""

from decimal import Decimal

import pytest
from hypothesis import strategies as st

from billing.invoicing.credited import (
    LineLeft,
    TaxedLine,
    by_amount,
    by_quantity,
    tax_part,
)
from meterplane.kernel.errors import CallerError
from tests.billing.properties import holds_for

# Of a line of an amount, a quantity and a tax: what each note asks, and what it gives back with
# how much tax. `q` asks by quantity.
TABLE = """
line           notes
100  3  19     q1 33+6   q1 34+7   q1 33+6
100  3  19     34+6      33+7      33+6
1000 7  190    q2 286+54 500+95    q5 214+41
1    3  0      1+0
-100 3  -19    q1 -33+-6 q2 -67+-13
999  4  77     q4 999+77
"""


@pytest.mark.parametrize("line", TABLE.splitlines()[2:])
def test_the_table(line):
    (amount, quantity, tax), notes = map(int, line[:15].split()), line[15:].split()
    left = LineLeft(amount, Decimal(quantity))
    asked: Decimal | None = None
    given_back = []
    for word in notes:
        if word.startswith("q"):
            asked = Decimal(word[1:])
            continue
        expected, expected_tax = map(int, word.split("+"))
        back = by_quantity(left, asked, "x") if asked else by_amount(left, expected, "USD", "x")
        noted = sum(part for _, part in given_back)
        part = tax_part(tax, noted, [TaxedLine(tax, left, back)])
        assert (back, part) == (expected, expected_tax)
        left = after(left, back, asked or Decimal())
        given_back.append((expected, expected_tax))
        asked = None
    assert sum(back for back, _ in given_back) == amount
    assert sum(back for _, back in given_back) == tax


def after(left: LineLeft, amount: int, quantity: Decimal) -> LineLeft:
    return LineLeft(
        left.amount_minor,
        left.quantity,
        left.credited_minor + amount,
        left.credited_quantity + quantity,
    )


@holds_for(
    st.integers(-(10**9), 10**9).filter(bool),
    st.integers(1, 10**9),
    st.integers(-(10**8), 10**8),
    st.lists(st.tuples(st.booleans(), st.integers(1, 1000)), max_size=12),
)
def test_any_sequence_adds_up_to_the_line_and_the_last_takes_what_is_left(
    amount, quantity, tax, parts
):
    left = LineLeft(amount, Decimal(quantity))
    taxes = 0
    for is_quantity, permille in parts:
        units = Decimal(max(1, int(left.quantity_left) * permille // 1000)) if is_quantity else 0
        try:
            if is_quantity:
                back = by_quantity(left, Decimal(units), "x")
            else:
                back = by_amount(left, left.left_minor * permille // 1000, "USD", "x")
        except CallerError:
            continue  # nothing, or worth nothing: no note is made of it
        taxes += tax_part(tax, taxes, [TaxedLine(tax, left, back)])
        left = after(left, back, Decimal(units))
        assert abs(left.credited_minor) <= abs(amount)
        assert left.left_minor == 0 or (left.left_minor > 0) == (amount > 0)
    if left.left_minor:
        last = by_amount(left, left.left_minor, "USD", "x")
        taxes += tax_part(tax, taxes, [TaxedLine(tax, left, last)])
        left = after(left, last, Decimal())
    assert (left.credited_minor, taxes) == (amount, tax)


@holds_for(st.integers(1000, 10**9), st.integers(1, 998), st.data())
def test_the_whole_quantity_in_parts_is_the_whole_amount(amount, first, data):
    second = data.draw(st.integers(1, 999 - first))
    left = LineLeft(amount, Decimal(1000))
    for units in map(Decimal, (first, second, 1000 - first - second)):
        left = after(left, by_quantity(left, units, "x"), units)
    assert left.credited_minor == amount


@pytest.mark.parametrize(
    ("amount", "code"),
    [(0, "credit_amount_invalid"), (-1, "credit_amount_invalid"), (71, "credit_exceeds_line")],
)
def test_never_more_than_is_left_nor_of_the_other_sign(amount, code):
    with pytest.raises(CallerError) as refused:
        by_amount(LineLeft(100, Decimal(3), 30), amount, "USD", "lines[0].amount")
    assert (refused.value.code, refused.value.field) == (code, "lines[0].amount")


@pytest.mark.parametrize("quantity", ["0", "-1", "NaN", "3.000000000001"])
def test_a_quantity_is_above_zero_and_at_most_what_is_left(quantity):
    with pytest.raises(CallerError):
        by_quantity(LineLeft(100, Decimal(3)), Decimal(quantity), "lines[0].quantity")


# Of an invoice: what each line is, its share of a tax and what a note gives back of it; the tax,
# what of it earlier notes gave back, and what this one does.
NOTES = """
lines                            tax  noted  part
900/171/900 -450/-85/-450         86      0    86
900/171/450 -450/-85/-450         86      0     0
900/171/450 -450/-85/0            86      0    86
900/171/0   -450/-85/0            86      0     0
900/171/333 -900/-171/-333         0      0     0
900/171/334 -900/-171/-333         0      0     0
"""


@pytest.mark.parametrize("line", NOTES.splitlines()[2:])
def test_a_note_gives_back_the_tax_of_its_money_and_none_of_what_credit_paid(line):
    *words, tax, noted, part = line.split()
    lines = []
    for word in words:
        amount, share, back = map(int, word.split("/"))
        lines.append(TaxedLine(share, LineLeft(amount, Decimal()), back))
    assert tax_part(int(tax), int(noted), lines) == int(part)


def test_the_last_note_takes_the_tax_that_a_note_of_credit_alone_left():
    usage, credit = LineLeft(900, Decimal()), LineLeft(-450, Decimal())
    first = tax_part(86, 0, [TaxedLine(171, usage, 450), TaxedLine(-85, credit, -450)])
    usage, credit = after(usage, 450, Decimal()), after(credit, -450, Decimal())
    last = tax_part(86, first, [TaxedLine(171, usage, 450), TaxedLine(-85, credit, 0)])
    assert (first, last) == (0, 86)
