"""What each grant pays of an invoice, against the theorem of max-flow and min-cut."""

import random
from itertools import chain, combinations

import pytest

from billing.credits.cover import Payable, Payer, cover
from billing.credits.draw import Grant, draw
from meterplane.kernel import clock

SEED = 20261130
A, B = frozenset({"a"}), frozenset({"b"})

#   grants in order (amount, models, meters)   lines (model, meter, amount)   what each pays
CASES = [
    ([(100, "", "")], [("a", "in", 60)], [60]),
    ([(50, "", "")], [("a", "in", 60)], [50]),
    ([(50, "", ""), (50, "", "")], [("a", "in", 60)], [50, 10]),
    ([(50, "b", "")], [("a", "in", 60)], [0]),
    ([(50, "a", "out")], [("a", "in", 60), ("a", "out", 7)], [7]),
    # The first could pay a's line, but only it is for b's: it moves, and nothing is left to pay.
    ([(10, "", ""), (10, "a", "")], [("a", "in", 10), ("b", "in", 10)], [10, 10]),
    # Two steps: the third pays a, so the second moves to b, so the first moves to c.
    (
        [(10, "", ""), (10, "ab", ""), (10, "a", "")],
        [("a", "in", 10), ("b", "in", 10), ("c", "in", 10)],
        [10, 10, 10],
    ),
    # Order first: the earlier grant pays all it can, although the later one is for this line alone.
    ([(10, "a", ""), (10, "a", "in")], [("a", "in", 10)], [10, 0]),
    # A line below zero counts against its sum, and against the invoice.
    ([(100, "a", "")], [("a", "in", 60), ("a", "in", -20), ("b", "in", 5)], [40]),
    ([(100, "", "")], [("a", "in", 60), ("b", "in", -20)], [40]),
    ([(100, "a", "")], [("a", "in", 60), ("b", "in", -80)], [0]),
    # What is of no model is paid by a grant for everything.
    ([(9, "a", ""), (9, "", "")], [("", "", 5)], [0, 5]),
    ([], [("a", "in", 60)], []),
    ([(5, "", "")], [], [0]),
]


def payer(amount: int, models: str, meters: str) -> Payer:
    return Payer(amount, frozenset(models), frozenset({meters} - {""}))


@pytest.mark.parametrize(("grants", "lines", "paid"), CASES)
def test_what_each_grant_pays(grants, lines, paid):
    assert cover([payer(*each) for each in grants], [Payable(*each) for each in lines]) == paid


def most_that_can_be_paid(payers: list[Payer], owed: dict[tuple[str, str], int]) -> int:
    """By the smallest cut: some payers give all they have, the lines of the others are all paid."""
    every = range(len(payers))
    cuts = (
        sum(payers[n].amount_minor for n in every if n not in kept)
        + sum(
            max(0, amount)
            for (model, meter), amount in owed.items()
            if any(payers[n].pays(model, meter) for n in kept)
        )
        for kept in chain.from_iterable(combinations(every, n) for n in range(len(payers) + 1))
    )
    return max(0, min(*cuts, sum(owed.values())) if payers else 0)


def test_every_grant_pays_all_it_can_before_the_next_one_does():
    """Of each beginning of the order: as much as can be paid by these at all."""
    draws = random.Random(SEED)
    print("seed", SEED)
    for _ in range(800):
        payers = [
            Payer(
                draws.randrange(0, 12),
                frozenset(draws.sample("abc", draws.choice((0, 0, 1, 2)))),
                frozenset(draws.sample(("in", "out"), draws.choice((0, 0, 1)))),
            )
            for _ in range(draws.randrange(0, 6))
        ]
        lines = [
            Payable(draws.choice("abcd"), draws.choice(("in", "out")), draws.randrange(-3, 12))
            for _ in range(draws.randrange(0, 8))
        ]
        owed: dict[tuple[str, str], int] = {}
        for line in lines:
            owed[line.model, line.meter] = owed.get((line.model, line.meter), 0) + line.amount_minor
        paid = cover(payers, lines)
        assert all(0 <= part <= each.amount_minor for part, each in zip(paid, payers, strict=True))
        for count in range(len(payers) + 1):
            assert sum(paid[:count]) == most_that_can_be_paid(payers[:count], owed)
        draws.shuffle(lines)
        assert cover(payers, lines) == paid


def test_without_scopes_it_is_the_plain_draw():
    draws = random.Random(SEED)
    for _ in range(300):
        amounts = [draws.randrange(1, 50) for _ in range(draws.randrange(1, 6))]
        lines = [Payable("a", str(n), draws.randrange(0, 40)) for n in range(5)]
        plain = draw(
            [Grant(id=str(n), amount=amount, priority=n) for n, amount in enumerate(amounts)],
            sum(line.amount_minor for line in lines),
            clock.now(),
        )
        applied = {part.id: part.amount for part in plain.applied}
        assert cover([Payer(amount) for amount in amounts], lines) == [
            applied.get(str(n), 0) for n in range(len(amounts))
        ]
