"""What credit covers of a running period: in text, and by rules that hold of any grants."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from billing.credits.covered import Ended, Pocket, changes, covered
from billing.credits.draw import Grant
from tests.billing.world import utc

NOVEMBER, DECEMBER, JANUARY = utc(11, 1), utc(12, 1), utc(12, 1) + timedelta(31)


def pocket(name, amount, begins=NOVEMBER, ends=None, rollover=0, priority=50):
    return Pocket(Grant(name, amount, priority, ends), begins, rollover)


# What is held, what November cost, the instant -> what is left for the period that runs then.
TABLE = [
    ("nothing", [], 0, utc(11, 9), 0),
    ("of a period that runs nothing is drawn", [pocket("a", 50)], 30, utc(11, 9), 50),
    ("of one that is over it is", [pocket("a", 50)], 30, DECEMBER, 20),
    ("what ends with it pays for it", [pocket("a", 50, ends=DECEMBER)], 30, DECEMBER, 0),
    ("and spares what goes on", [pocket("a", 50, ends=DECEMBER), pocket("b", 9)], 30, DECEMBER, 9),
    ("but for what it lacks", [pocket("a", 20, ends=DECEMBER), pocket("b", 19)], 30, DECEMBER, 9),
    ("drawn first, the other spares nothing",
     [pocket("a", 50, ends=DECEMBER), pocket("b", 40, priority=1)], 30, DECEMBER, 10),
    ("what ended within it pays nothing",
     [pocket("a", 50, ends=utc(11, 9)), pocket("b", 40)], 30, DECEMBER, 10),
    ("what begins with the next pays nothing", [pocket("a", 50, DECEMBER)], 30, DECEMBER, 50),
    ("what rolls over pays first",
     [pocket("a", 50, ends=DECEMBER, rollover=40)], 30, DECEMBER, 20),
    ("no more rolls over than may", [pocket("a", 50, ends=DECEMBER, rollover=5)], 30, DECEMBER, 5),
    ("and for as long again", [pocket("a", 50, ends=DECEMBER, rollover=5)], 30, JANUARY, 0),
    ("not yet", [pocket("a", 50, utc(12, 2))], 0, DECEMBER, 0),
]  # fmt: skip


@pytest.mark.parametrize(("pockets", "cost", "at", "left"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_what_is_left_for_the_period_that_runs(pockets, cost, at, left):
    assert covered(pockets, [Ended(DECEMBER, cost)], at) == left


def test_who_knows_less_of_what_was_spent_allows_no_more():
    """Over random grants: what is covered and what is known to be spent, together, only rise."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(60):
        pockets = []
        for name in range(chance.randrange(1, 6)):
            begins = NOVEMBER + timedelta(chance.randrange(45))
            ends = chance.choice([None, DECEMBER, begins + timedelta(chance.randrange(1, 40))])
            if ends is not None and ends <= begins:
                ends = None
            pockets.append(
                pocket(
                    f"{name}", chance.randrange(1, 60), begins, ends, chance.randrange(40),
                    chance.randrange(3),
                )
            )  # fmt: skip
        at = DECEMBER + timedelta(chance.randrange(20))
        spent = Ended(DECEMBER, 0)
        before = covered(pockets, [spent], at)
        for _ in range(chance.randrange(150)):
            spent = replace(spent, cost=spent.cost + 1)
            now = covered(pockets, [spent], at)
            assert before - 1 <= now <= before
            before = now
        assert changes(pockets, at) == sorted(set(changes(pockets, at)))
