"""OpenAI's chat request into an engine's, and the engine's answer into OpenAI's. No I/O."""

from uuid import UUID

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.gateway import openai_chat
from meterplane.kernel.errors import CallerError, WorldError

MODEL = ModelPolicy(
    name="tiny-lm",
    upstream="tiny-lm-7b",
    adapter="vllm",
    prices=UnitPrices(input_token_pico=3, output_token_pico=5, request_pico=7),
    context_tokens_max=4096,
    output_tokens_max=100,
    output_tokens_default=10,
)
ASK = {"model": "tiny-lm", "messages": [{"role": "user", "content": "héllo"}]}


def parse(**changes):
    return openai_chat.parse(msgspec.json.encode(ASK | changes))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [ASK["messages"][0]] * 1025}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 99}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": 7}, "stop"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": None}, "model"),
        ({"lora_path": "/etc/passwd"}, "lora_path"),
        ({"tools": []}, "tools"),
        ({"image": "http://internal/"}, "image"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change, field):
    with pytest.raises(CallerError) as refused:
        parse(**change)
    assert refused.value.status == 400
    assert (refused.value.field or "").startswith(field)


def test_a_missing_field_is_named():
    with pytest.raises(CallerError) as refused:
        openai_chat.parse(b'{"model":"tiny-lm"}')
    assert refused.value.field == "messages"


def test_everything_an_ordinary_client_sends_is_accepted():
    work = parse(
        stream=True, stream_options={"include_usage": True}, max_completion_tokens=5, n=2, seed=1,
        temperature=0, top_p=1, stop="x", user="u", metadata={"trace": "1"},
    )  # fmt: skip
    assert (work.model, work.stream) == ("tiny-lm", True)


@pytest.mark.parametrize(
    ("asked", "tokens_out"),
    [
        ({}, 10),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 5000}, 100),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"n": 3}, 30),
    ],
)
def test_the_output_is_bounded_by_what_was_asked_and_the_model_allows(asked, tokens_out):
    work = parse(**asked)
    assert work.bounds(MODEL).tokens_out_max == tokens_out
    sent = msgspec.json.decode(openai_chat.upstream_body(work, MODEL))
    sampling = msgspec.json.decode(sent["sampling_parameters"])
    assert sampling["max_tokens"] * sampling["n"] == tokens_out


def test_the_input_bound_counts_bytes_and_the_template():
    prompt = openai_chat.render_prompt(parse().body.messages)
    assert parse().bounds(MODEL).tokens_in_max >= len(prompt.encode()) > len(prompt)


def test_the_reservation_is_the_worst_case_rounded_up():
    class Policy:
        models = {"tiny-lm": MODEL}

    bounds = parse().bounds(MODEL)
    worst_pico = bounds.tokens_in_max * 3 + bounds.tokens_out_max * 5 + 7
    assert parse().worst_cost_nano(Policy) == -(-worst_pico // 1000)


def test_only_listed_fields_reach_the_engine():
    work = parse(user="someone", metadata={"a": "b"}, stop=["x", "y"], seed=4)
    sent = msgspec.json.decode(openai_chat.upstream_body(work, MODEL))
    assert set(sent) == {
        "text_input", "stream", "sampling_parameters", "exclude_input_in_output",
        "return_num_input_tokens", "return_num_output_tokens", "return_finish_reason",
    }  # fmt: skip
    assert msgspec.json.decode(sent["sampling_parameters"]) == {
        "max_tokens": 10,
        "n": 1,
        "seed": 4,
        "stop": ["x", "y"],
    }


def test_content_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    work = parse(messages=[{"role": "user", "content": parts}])
    assert openai_chat.render_prompt(work.body.messages) == "user: ab\nassistant:"


def event(text="x", tokens_in=3, tokens_out=1, reason="None"):
    return {
        "text_output": text,
        "num_input_tokens": tokens_in,
        "num_output_tokens": tokens_out,
        "finish_reason": reason,
    }


def test_a_tensor_of_one_comes_as_a_scalar_and_counts_alike():
    one = openai_chat.read_chunk(event())
    assert one == openai_chat.read_chunk(event(["x"], 3, [1], ["None"]))
    three = openai_chat.read_chunk(event(["x", "", "z"], 3, [1, 0, 1], ["None", "stop", "None"]))
    assert (three.tokens_in, three.tokens_out) == (3, 2)
    assert three.finish_reasons == [None, "stop", None]


@pytest.mark.parametrize("lost", ["num_input_tokens", "num_output_tokens", "text_output"])
def test_an_answer_without_counts_cannot_be_sold(lost):
    chunk = event()
    del chunk[lost]
    with pytest.raises(WorldError) as refused:
        openai_chat.read_chunk(chunk)
    assert refused.value.status == 502


def shaped(request, *events):
    """The data of every event of a stream."""
    shape = openai_chat.ChatShape(str(UUID(int=7)), 1_700_000_000, request)
    chunks = [openai_chat.read_chunk(each) for each in events]
    stream = shape.opening() + b"".join(shape.chunk(chunk) for chunk in chunks)
    stream += shape.closing(3, sum(chunk.tokens_out for chunk in chunks))
    assert stream.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(line[6:]) for line in stream.split(b"\n\n")[:-2]]


def test_a_stream_begins_with_the_role_and_ends_with_reason_usage_and_done():
    request = parse(stream=True, stream_options={"include_usage": True}).body
    lines = shaped(request, event("he"), event("llo", reason="length"))
    choices = [line["choices"][0] for line in lines[:-1]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert [line["usage"] for line in lines] == [
        *[None] * 4,
        {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    ]
    assert lines[-1]["choices"] == []
    assert {line["object"] for line in lines} == {"chat.completion.chunk"}


def test_usage_is_not_mentioned_unless_asked_for():
    assert not any("usage" in line for line in shaped(parse(stream=True).body, event()))


def test_a_reason_the_engine_forgot_is_stop():
    last = shaped(parse(stream=True).body, event())[-1]
    assert last["choices"][0]["finish_reason"] == "stop"


def test_choices_keep_their_index():
    request = parse(stream=True, n=2).body
    lines = shaped(
        request, event(["a", "b"], 3, [1, 1], ["None", "stop"]), event(["c", ""], 3, [1, 0])
    )
    texts = ["", ""]
    for line in lines:
        choice = line["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["ac", "b"]


def test_a_plain_answer_is_the_stream_collected():
    shape = openai_chat.ChatShape("r", 1, parse().body)
    for each in (event("he"), event("llo", reason="length")):
        shape.chunk(openai_chat.read_chunk(each))
    answer = msgspec.json.decode(shape.answer(3, 2))
    assert answer["object"] == "chat.completion"
    assert answer["id"] == "chatcmpl-r"
    assert answer["choices"][0]["message"]["content"] == "hello"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 5
