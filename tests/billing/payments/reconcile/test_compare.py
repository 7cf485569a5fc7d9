"""Rows of ours against rows of theirs: every difference is told in a sentence, and nothing else."""

import random

import pytest

from billing.payments.reconcile.compare import Row, compare
from tests.billing.world import utc


def row(text: str) -> Row | None:
    """`our id, their id, status, minor units currency`; `-`: none."""
    if text == "":
        return None
    ours, theirs, status, amount, currency = text.split()
    return Row(
        ours.strip("-"), theirs.strip("-"), f"invoice {ours}/{theirs}", status, currency,
        None if amount == "-" else int(amount), utc(11, 1),
    )  # fmt: skip


# ours; theirs; what is told
CASES = """
a in_1 paid 301 USD      | a in_1 paid 301 USD          |
a in_1 draft - USD       | a in_1 draft - USD           |
a in_1 paid 301 USD      | a in_1 paid 302 USD          | different: amount ours 3.01 USD, theirs 3.02 USD
a in_1 paid 301 JPY      | a in_1 paid 301 USD          | different: amount ours 301 JPY, theirs 3.01 USD
a in_1 open 301 USD      | a in_1 void 301 USD          | different: status ours open, theirs void
a in_1 draft - USD       | a in_1 draft - EUR           | different: currency ours USD, theirs EUR
a in_1 draft - USD       | a in_1 draft 1 USD           |
a in_1 paid 301 USD      | b in_1 paid 301 USD          | different: id ours a, theirs b
a in_1 paid 301 USD      |                              | missing_there: is in_1 by our books, which is not there
a - parked 301 USD       |                              | missing_there: was not brought there yet
                         | - in_1 open 301 USD          | missing_here: was not made by us
                         | a in_1 open 301 USD          | missing_here: names a as ours, which has no such one
a in_2 paid -300 USD     | a in_2 paid -300 USD         |
a in_2 paid -300 USD     | a in_2 paid 300 USD          | different: amount ours -3.00 USD, theirs 3.00 USD
"""  # noqa: E501  # a table


@pytest.mark.parametrize("case", CASES.strip("\n").splitlines())
def test_what_differs_is_told_in_a_sentence(case):
    ours, theirs, told = (part.strip() for part in case.split("|"))
    found = compare([each] if (each := row(ours)) else [], [each] if (each := row(theirs)) else [])
    if not told:
        assert found == []
        return
    problem, _, said = told.partition(": ")
    [one] = found
    assert one.problem == problem
    assert said in one.said


def test_a_second_one_of_theirs_is_told_beside_the_first():
    ours, second = row("a in_1 paid 301 USD"), row("a in_2 draft - USD")
    assert ours is not None
    assert second is not None
    [found] = compare([ours], [ours, second])
    assert (found.problem, found.our_id, found.their_id) == ("missing_here", "a", "in_2")
    assert "is a second one of invoice a/in_1, whose own is in_1" in found.said


def test_each_of_many_changes_is_found_and_nothing_else():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(50):
        same = [row(f"{n} in_{n} paid {chance.randrange(1, 999)} USD") for n in range(60)]
        ours, theirs, wanted = list(same), list(same), set()
        for n in chance.sample(range(60), 12):
            each = same[n]
            assert each is not None
            match chance.randrange(3):
                case 0:
                    ours.remove(each)
                    wanted.add(("missing_here", f"in_{n}"))
                case 1:
                    theirs.remove(each)
                    wanted.add(("missing_there", f"in_{n}"))
                case _:
                    theirs[theirs.index(each)] = row(f"{n} in_{n} paid 1000 USD")
                    wanted.add(("different", f"in_{n}"))
        chance.shuffle(ours)
        chance.shuffle(theirs)
        found = compare(ours, theirs)  # type: ignore[arg-type]
        assert {(each.problem, each.their_id) for each in found} == wanted
        assert len(found) == len(wanted)
