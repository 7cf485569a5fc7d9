"""Responses that add, or repeat all so far: told apart by what they say. Pure, from a seed.

Whatever a deployment does, a caller reads each word once and pays for no token twice; and for none
too few where an answer is long enough to show which deployment it is.
"""

import random

import pytest

from meterplane.gateway.adapters.totals import UNDECIDED_CHARS, Sequence

PROMPT = "What do zebras pay for their budgets?"
PROMPT_TOKENS = 9
PIECES_SURE = 6  # from here on every deployment has shown what it is


def pieces(dice, several):
    """Words as tokenizers cut them, with the tokens of each."""
    letters = "abcdefghijklmnopqrstuvwxyzäöü漢🙂"
    return [
        ("".join(dice.choices(letters, k=dice.randrange(2, 9))) + " ", dice.randrange(1, 4))
        for _ in range(several)
    ]


def told(made, *, texts, counts, echoed):
    """What a deployment sends for these pieces."""
    text, tokens = (PROMPT, PROMPT_TOKENS) if echoed else ("", 0)
    for new_text, new_tokens in made:
        text += new_text
        tokens += new_tokens
        yield text if texts == "totals" else new_text, tokens if counts == "totals" else new_tokens


DEPLOYMENTS = [
    {"texts": texts, "counts": counts, "echoed": False}
    for texts in ("news", "totals")
    for counts in ("news", "totals")
] + [{"texts": "totals", "counts": "totals", "echoed": True}]


def ids(deployment):
    return "-".join(map(str, deployment.values()))


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=ids)
def test_every_word_is_read_once_and_every_token_billed_once(deployment):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        made = pieces(dice, dice.randrange(PIECES_SURE, 40))
        truth = "".join(text for text, _ in made)
        sequence = Sequence(PROMPT)
        shown = ""
        for text, count in told(made, **deployment):
            shown += sequence.add(text, count, PROMPT_TOKENS)
            assert truth.startswith(shown), (deployment, made)
        shown += sequence.finish()
        assert shown == truth, (deployment, made)
        assert sequence.tokens == sum(count for _, count in made), (deployment, made)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=ids)
def test_a_short_answer_is_never_billed_above_what_was_made(deployment):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(500):
        made = pieces(dice, dice.randrange(1, PIECES_SURE))
        truth = "".join(text for text, _ in made)
        sequence = Sequence(PROMPT)
        shown = "".join(
            sequence.add(text, count, PROMPT_TOKENS) for text, count in told(made, **deployment)
        )
        shown += sequence.finish()
        assert shown == truth, (deployment, made)
        assert 0 < sequence.tokens <= sum(count for _, count in made), (deployment, made)


def test_additions_that_look_like_totals_by_chance_are_all_shown():
    for made in (["1", "10", "100", "x"], ["a", "a", "a", "b"], ["ha", "ha", "ha", "ha", "ha"]):
        sequence = Sequence(PROMPT)
        shown = "".join(sequence.add(text, 1, PROMPT_TOKENS) for text in made) + sequence.finish()
        assert shown == "".join(made)
        assert sequence.tokens <= len(made)


def test_an_answer_that_ends_undecided_was_totals_if_what_it_repeated_was_a_text():
    long, short = "w" * UNDECIDED_CHARS, "w" * (UNDECIDED_CHARS - 2)
    for first, shown in ((long, long + "x"), (short, short + short + "x")):
        sequence = Sequence(PROMPT)
        found = sequence.add(first, 1, PROMPT_TOKENS) + sequence.add(first + "x", 2, PROMPT_TOKENS)
        assert found + sequence.finish() == shown


def test_nothing_said_is_nothing_billed():
    sequence = Sequence(PROMPT)
    assert sequence.add("", 0, PROMPT_TOKENS) + sequence.finish() == ""
    assert sequence.tokens == 0
    untouched = Sequence(PROMPT)
    assert (untouched.finish(), untouched.tokens) == ("", 0)
