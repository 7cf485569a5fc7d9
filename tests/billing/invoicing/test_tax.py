"""Taxes to the cent: as tables, and as what holds of any lines and rates."""

from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import strategies as st

from billing.invoicing.tax import Rate, tax
from tests.billing.properties import holds_for

# Lines in minor units, rates (+ on top of prices, = in them); each tax with its lines, the total.
TABLE = """
lines              rates          taxes                         total
100                +19            19: 19                        119
1000 500           +20 +5         300: 200 100 | 75: 50 25      1875
12000              =20            2000: 2000                    12000
12000              =20 +5         2000: 2000 | 500: 500         12500
333 333 333        +10            100: 34 33 33                 1099
5 5 5 5            +10            2: 1 1 0 0                    22
1000 -200          +19            152: 190 -38                  952
-1000              +19            -190: -190                    -1190
100 -100           +19            0: 19 -19                     0
150                +0.333         0: 0                          150
15000              +0.333         50: 50                        15050
1                  +50            1: 1                          2
-1                 +50            -1: -1                        -2
999                +7.7           77: 77                        1076
10000 10000        =7.7 =2.5      1397: 699 698 | 454: 227 227  20000
0 100              +0             0: 0 0                        100
"""


def rates_of(text: str) -> list[Rate]:
    return [
        Rate(
            UUID(int=n),
            f"tax {n}",
            Decimal(each[1:]),
            "exclusive" if each[0] == "+" else "inclusive",
        )
        for n, each in enumerate(text.split(), start=1)
    ]


def row(line: str) -> tuple[str, ...]:
    starts = [TABLE.splitlines()[1].index(name) for name in ("lines", "rates", "taxes", "total")]
    ends = [*starts[1:], None]
    return tuple(line[start:end].strip() for start, end in zip(starts, ends, strict=True))


@pytest.mark.parametrize("line", TABLE.splitlines()[2:])
def test_the_table(line):
    lines, rates, taxes, total = row(line)
    made = tax(dict(enumerate(map(int, lines.split()))), rates_of(rates))
    shown = " | ".join(
        f"{each.amount_minor}: {' '.join(map(str, each.by_line.values()))}" for each in made.taxes
    )
    assert (shown, made.total_minor) == (taxes, int(total))


amounts = st.dictionaries(
    st.integers(0, 200), st.integers(-(10**12), 10**12), min_size=1, max_size=12
)
percentages = st.integers(0, 1_000_000).map(lambda n: Decimal(n).scaleb(-4))
rates = st.lists(
    st.tuples(percentages, st.sampled_from(["exclusive", "inclusive"])), max_size=4
).map(lambda given: [Rate(UUID(int=n), str(n), *each) for n, each in enumerate(given)])


@holds_for(amounts, rates)
def test_shares_add_up_and_no_rounding_is_beyond_half_a_cent(lines, rates):
    made = tax(lines, rates)
    gross = 1 + sum(
        (Fraction(r.percentage) / 100 for r in rates if r.mode == "inclusive"), Fraction()
    )
    for each in made.taxes:
        exact = Fraction(sum(lines.values())) * Fraction(each.rate.percentage) / 100 / gross
        assert sum(each.by_line.values()) == each.amount_minor
        assert abs(each.amount_minor - exact) <= Fraction(1, 2)
        for key, share in each.by_line.items():
            assert (
                abs(share - Fraction(lines[key]) * Fraction(each.rate.percentage) / 100 / gross) < 1
            )
    exclusive = sum(each.amount_minor for each in made.taxes if each.rate.mode == "exclusive")
    assert made.total_minor == sum(lines.values()) + exclusive


@holds_for(amounts, rates, st.randoms(use_true_random=False))
def test_the_order_of_lines_and_rates_changes_nothing(lines, rates, chance):
    shuffled, others = list(lines.items()), list(rates)
    chance.shuffle(shuffled)
    chance.shuffle(others)
    first, second = tax(lines, rates), tax(dict(shuffled), others)
    assert {e.rate.id: (e.amount_minor, dict(e.by_line)) for e in first.taxes} == {
        e.rate.id: (e.amount_minor, dict(e.by_line)) for e in second.taxes
    }
    assert first.total_minor == second.total_minor


@holds_for(amounts, rates)
def test_the_opposite_lines_have_the_opposite_taxes(lines, rates):
    opposite = tax({key: -amount for key, amount in lines.items()}, rates)
    made = tax(lines, rates)
    assert [e.amount_minor for e in opposite.taxes] == [-e.amount_minor for e in made.taxes]
