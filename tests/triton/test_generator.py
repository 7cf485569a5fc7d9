"""tiny-lm: the same seed writes the same text, and every token it bills was written."""

import pytest

from tests.triton.sources import REPOSITORY, source

tiny = source("tiny-lm", "generator")
PROMPT = "What about budgets?"


@pytest.fixture(scope="module")
def generator():
    return tiny.Generator(REPOSITORY / "tiny-lm/1/corpus.txt")


def write(generator, sequence=0, prompt=PROMPT, **sampling):
    """The pieces, the token count and the reason of one sequence."""
    steps = list(generator.generate(prompt, tiny.Sampling.read(sampling), sequence))
    assert [reason for *_, reason in steps[:-1]] == ["None"] * (len(steps) - 1)
    return [text for text, *_ in steps], sum(count for _, count, _ in steps), steps[-1][2]


def test_a_seed_and_a_prompt_make_one_text(generator):
    first = write(generator, seed=1, max_tokens=60)
    assert first == write(generator, seed=1, max_tokens=60)
    others = [write(generator, seed=seed, max_tokens=60) for seed in range(2, 8)]
    assert any(other != first for other in others)


def test_sequences_of_one_request_differ(generator):
    texts = {"".join(write(generator, i, seed=5, max_tokens=60)[0]) for i in range(8)}
    assert len(texts) > 1


def test_temperature_zero_needs_no_seed(generator):
    openings = {write(generator, temperature=0, max_tokens=200, seed=9)[0][0] for _ in range(5)}
    assert len(openings) == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_tokens_billed_are_the_tokens_of_the_text(generator, seed):
    pieces, count, reason = write(generator, seed=seed, max_tokens=80, ignore_eos=seed % 2 == 1)
    assert count == generator.count("".join(pieces)) <= 80
    assert (count == 80) == (reason == "length")


@pytest.mark.parametrize("limit", [1, 2, 7, 500])
def test_it_writes_as_many_tokens_as_asked_when_told_not_to_end(generator, limit):
    _, count, reason = write(generator, seed=1, max_tokens=limit, ignore_eos=True)
    assert (count, reason) == (limit, "length")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("length", [1, 3, 9, 30])
def test_no_part_of_a_stop_text_is_given_out(generator, seed, length):
    """Also when it spans several tokens: what may begin it waits until it is known not to."""
    pieces, full_count, _ = write(generator, seed=seed, max_tokens=60, ignore_eos=True)
    text = "".join(pieces)
    stop = text[len(text) // 2 :][:length]
    cut, count, reason = write(
        generator, seed=seed, max_tokens=60, ignore_eos=True, stop=["never there", stop]
    )
    assert "".join(cut) == text[: text.index(stop)]
    assert reason == "stop"
    # The tokens up to the end of the stop text were computed, the last of them included.
    ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
    computed = next(i for i, end in enumerate(ends, 1) if end >= text.index(stop) + len(stop))
    assert count == min(computed, full_count)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("The budget is reserved.", 5),
        ("The  budget\nis reserved .", 5),
        ("zebra", 5),
        ("The zebra", 6),
    ],
)
def test_prompts_are_counted_by_the_rule_that_is_written_down(generator, text, tokens):
    assert generator.count(text) == tokens


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 0},
        {"max_tokens": 4097},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": "many"},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"n": 0},
        {"n": 9},
        {"seed": "x"},
        {"stop": ""},
        {"stop": [1]},
        {"stop": {"a": 1}},
        {"stop": [""]},
        {"logit_bias": {}},
        [],
        "text",
        None,
    ],
)
def test_bad_sampling_parameters_are_named_and_refused(sampling):
    if sampling == {"stop": ""}:
        assert tiny.Sampling.read(sampling).stop == []
        return
    with pytest.raises(ValueError, match=next(iter(sampling or {"object": 0}), "object")):
        tiny.Sampling.read(sampling)


def test_null_means_not_given():
    assert tiny.Sampling.read({"seed": None, "stop": None, "max_tokens": None}) == tiny.Sampling()
