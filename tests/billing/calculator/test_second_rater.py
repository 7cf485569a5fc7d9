"""Two raters that share no code agree on every random question, whole answers compared."""

import os
from random import Random

import pytest

from billing.calculator.answer import answer
from tests.billing.calculator.questions import question
from tests.billing.calculator.second_rater import second_answer


def agree(count: int) -> None:
    seed = int(os.environ.get("SEED", Random().randrange(2**32)))
    print(f"SEED={seed}")
    random = Random(seed)
    for number in range(count):
        asked = question(random)
        assert answer(asked) == second_answer(asked), f"SEED={seed}, question {number}: {asked}"


def test_the_second_rater_agrees():
    agree(1_500)


@pytest.mark.long
def test_the_second_rater_agrees_on_a_hundred_thousand():
    agree(100_000)
