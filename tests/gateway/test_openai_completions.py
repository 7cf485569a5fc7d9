"""Text completions: the request as it is read, and a real Triton's answers through the gateway."""

import json

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.surface import Offer
from meterplane.gateway.surfaces import openai_completions
from meterplane.kernel.errors import CallerError
from tests.triton.sources import REPOSITORY, source

MODEL = ModelPolicy(
    name="tiny-lm",
    upstream="tiny-lm",
    adapter="vllm",
    prices=UnitPrices(input_token_pico=3, output_token_pico=5, request_pico=7),
    context_tokens_max=4096,
    output_tokens_max=100,
    output_tokens_default=10,
)
GENERATOR = source("tiny-lm", "generator").Generator(REPOSITORY / "tiny-lm/1/corpus.txt")


def offer(adapter="vllm", parameters=()):
    told = ModelServing(
        name="tiny-lm", version=1, targets=[Target(upstream="m")], parameters=list(parameters)
    )
    return Offer(msgspec.structs.replace(MODEL, adapter=adapter), told, MODEL.prices)


def parse(**changes):
    return openai_completions.parse(
        msgspec.json.encode({"model": "tiny-lm", "prompt": "x"} | changes)
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"n": 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"echo": "yes"}, "echo"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_no_model_can_mean_is_refused_by_name(change, field):
    with pytest.raises(CallerError) as refused:
        parse(**change)
    assert refused.value.status == 400
    assert (refused.value.field or "").startswith(field)


@pytest.mark.parametrize(
    ("change", "adapter", "field"),
    [
        ({"prompt": [1, 2]}, "vllm", "prompt"),
        ({"prompt": [[1, 2]]}, "tensorrtllm", "prompt"),
        ({"suffix": "x"}, "vllm", "suffix"),
        ({"suffix": "x"}, "openai", "suffix"),
        ({"logprobs": 1}, "tensorrtllm", "logprobs"),
        ({"logprobs": 1, "echo": True}, "vllm", "logprobs"),
        ({"user_id": 1}, "vllm", "user_id"),
        ({"max_completion_tokens": 1}, "vllm", "max_completion_tokens"),
        ({"messages": []}, "vllm", "messages"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_name_and_never_dropped(change, adapter, field):
    with pytest.raises(CallerError) as refused:
        parse(**change).bounds(offer(adapter))
    assert (refused.value.status, refused.value.field) == (400, field)


@pytest.mark.parametrize(
    ("prompt", "rows", "tokens_in"),
    [("abc", 1, 5), (["abc", "é"], 2, 9), ([7, 8, 9], 1, 5), ([[7, 8], [9]], 2, 7)],
)
def test_an_upstream_that_takes_tokens_is_bounded_by_their_number(prompt, rows, tokens_in):
    bounds = parse(prompt=prompt, n=2).bounds(offer("openai"))
    assert (bounds.rows, bounds.tokens_in_max) == (rows, tokens_in)
    assert bounds.tokens_out_max == rows * 2 * 10


def test_each_prompt_has_its_own_choices_in_the_bound():
    bounds = parse(prompt=["a", "b", "c"], n=2, max_tokens=7).bounds(offer())
    assert (bounds.rows, bounds.tokens_out_max) == (3, 3 * 2 * 7)


# --- through the gateway, on the real Triton

DATABASE = pytest.mark.django_db(transaction=True)
ASK = {"model": "tiny-lm", "prompt": "Tell me of budgets", "max_tokens": 12, "seed": 3}


@pytest.fixture
def complete(gateway, acme):
    """Ask; a stream's text is collected per choice."""
    with gateway.client(acme.secret) as client:

        def ask(**changes):
            return client.post("/v1/completions", json=ASK | changes)

        yield ask


def only_settle(gateway):
    (admit,), (settle,) = gateway.admits(), gateway.settles()
    assert settle.cost_nano == settle.tokens_in * 150 + settle.tokens_out * 600
    assert settle.cost_nano <= admit.reserved_nano
    return settle


@DATABASE
def test_a_completion_is_counted_by_its_engine(complete, gateway):
    answer = complete().json()
    (choice,) = answer["choices"]
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny-lm")
    assert answer["id"].startswith("cmpl-")
    settle = only_settle(gateway)
    assert settle.tokens_in == answer["usage"]["prompt_tokens"] == GENERATOR.count(ASK["prompt"])
    assert settle.tokens_out == answer["usage"]["completion_tokens"]
    assert settle.tokens_out == GENERATOR.count(choice["text"])
    assert (settle.surface, settle.provenance, settle.rows) == ("openai.completions", "engine", 1)


@DATABASE
def test_several_prompts_and_choices_are_one_answer_and_one_event_with_their_sum(complete, gateway):
    prompts = ["Budgets?", "Who pays the bills?", "Streams"]
    answer = complete(prompt=prompts, n=2).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    settle = only_settle(gateway)
    assert settle.tokens_in == sum(map(GENERATOR.count, prompts))
    assert settle.tokens_out == sum(GENERATOR.count(c["text"]) for c in answer["choices"])
    assert settle.tokens_out == answer["usage"]["completion_tokens"]
    assert settle.rows == 3


@DATABASE
@pytest.mark.parametrize("stream", [True, False])
def test_echo_gives_the_prompt_back_and_does_not_count_it_as_output(complete, gateway, stream):
    prompts = ["Budgets? ", "Streams: "]
    answer = complete(prompt=prompts, echo=True, stream=stream)
    texts = streamed(answer) if stream else [each["text"] for each in answer.json()["choices"]]
    for text, prompt in zip(texts, prompts, strict=True):
        assert text.startswith(prompt)
    out = [text.removeprefix(prompt) for text, prompt in zip(texts, prompts, strict=True)]
    assert only_settle(gateway).tokens_out == sum(map(GENERATOR.count, out))


def streamed(answer):
    """The text of each choice."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    texts: dict[int, str] = {}
    for event in events:
        for choice in json.loads(event[6:])["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return [texts[index] for index in sorted(texts)]


@DATABASE
def test_a_stream_says_what_the_plain_answer_says(complete, gateway):
    ask = {"prompt": ["Budgets?", "Streams"], "n": 2}
    plain = complete(**ask).json()
    texts = streamed(complete(**ask, stream=True, stream_options={"include_usage": True}))
    assert texts == [choice["text"] for choice in plain["choices"]]
    first, second = gateway.settles()
    assert (first.tokens_in, first.tokens_out) == (second.tokens_in, second.tokens_out)
    assert (first.stream, second.stream) == (False, True)


@DATABASE
@pytest.mark.parametrize("wanted", [True, False])
def test_a_streams_usage_is_for_those_who_asked(complete, gateway, wanted):
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    answer = complete(stream=True, **options)
    events = [json.loads(event[6:]) for event in answer.text.split("\n\n")[:-2]]
    if not wanted:
        assert not any("usage" in event for event in events)
        return
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    settle = only_settle(gateway)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {
        "prompt_tokens": settle.tokens_in,
        "completion_tokens": settle.tokens_out,
        "total_tokens": settle.tokens_in + settle.tokens_out,
    }


@DATABASE
def test_a_seed_repeats_an_answer_and_another_does_not(complete):
    texts = [complete(seed=seed, max_tokens=40).json()["choices"][0]["text"] for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


@DATABASE
def test_a_stop_ends_the_text_before_it(complete):
    whole = complete(max_tokens=40).json()["choices"][0]["text"]
    word = next(word for word in whole.split()[2:] if word.isalpha())
    for stop in (word, ["never said so", word]):
        (choice,) = complete(max_tokens=40, stop=stop).json()["choices"]
        assert word not in choice["text"].split()
        assert whole.startswith(choice["text"])
        assert choice["finish_reason"] == "stop"


@DATABASE
def test_max_tokens_is_kept_and_its_reason_told(complete, gateway):
    (choice,) = complete(max_tokens=3).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert only_settle(gateway).tokens_out == 3


@DATABASE
@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"prompt": [1, 2, 3]}, "prompt", "unsupported_parameter"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "unsupported_parameter"),
        ({"suffix": "."}, "suffix", "unknown_parameter"),
        ({"best_of": 3}, "best_of", "unsupported_parameter"),
        ({"ignore_eos": True}, "ignore_eos", "unknown_parameter"),
        ({"prompt": ["a", 1]}, "prompt", "invalid_value"),
    ],
)
def test_a_refusal_names_the_field_and_costs_nothing(complete, gateway, change, field, code):
    answer = complete(**change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (field, code)
    assert error["type"] == "invalid_request_error"
    assert gateway.frames() == []


@DATABASE
def test_what_the_engine_itself_refuses_is_a_400_in_its_words_and_free(complete, gateway):
    answer = complete(logprobs=2)  # the sample engine knows none
    assert answer.status_code == 400
    assert "logprobs" in answer.json()["error"]["message"]
    (settle,) = gateway.settles()
    assert (settle.status, settle.cost_nano, settle.requests) == ("error", 0, 0)
