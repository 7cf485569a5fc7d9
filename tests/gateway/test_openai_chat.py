"""OpenAI's chat request into an engine's, and the engine's answer into OpenAI's. No I/O."""

import json
from uuid import UUID

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.adapters.engine import Ask
from meterplane.gateway.adapters.text import asks_for
from meterplane.gateway.adapters.vllm import Vllm
from meterplane.gateway.surface import Offer
from meterplane.gateway.surfaces import openai_chat
from meterplane.gateway.surfaces.openai_chat_answer import ChatAnswer
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
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def parse(**changes):
    return openai_chat.parse(msgspec.json.encode(ASK | changes))


def offer(adapter="vllm", parameters=(), **serving):
    model = msgspec.structs.replace(MODEL, adapter=adapter)
    told = ModelServing(
        name="tiny-lm",
        version=1,
        targets=[Target(upstream="tiny-lm-7b")],
        parameters=list(parameters),
        **serving,
    )
    return Offer(model, told, MODEL.prices)


def asked_of_vllm(work, offered) -> list[Ask]:
    return [ask for _, ask in asks_for(work, offered, work.prompts(offered), Vllm())]


def sent_to_vllm(work, offered=None):
    """The body, and the sampling parameters inside it."""
    (ask,) = asked_of_vllm(work, offered or offer())
    body = msgspec.json.decode(Vllm().body(ask))
    return body, msgspec.json.decode(body.pop("sampling_parameters"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [ASK["messages"][0]] * 1025}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "surprise": 1}]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 99}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"stop": 7}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"surprise": True}}, "stream_options"),
        ({"model": None}, "model"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
def test_what_no_model_can_mean_is_refused_by_name(change, field):
    with pytest.raises(CallerError) as refused:
        parse(**change)
    assert refused.value.status == 400
    assert (refused.value.field or "").startswith(field)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff{}"])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(CallerError) as refused:
        openai_chat.parse(body)
    assert refused.value.status == 400


def test_a_missing_field_is_named():
    with pytest.raises(CallerError) as refused:
        openai_chat.parse(b'{"model":"tiny-lm"}')
    assert refused.value.field == "messages"


@pytest.mark.parametrize("name", ["lora_path", "tools", "image", "functions", "best_of", "échelle"])
def test_a_field_outside_the_models_allow_list_is_refused_and_never_dropped(name):
    for adapter in ("vllm", "tensorrtllm", "openai"):
        with pytest.raises(CallerError) as refused:
            parse(**{name: 1}).bounds(offer(adapter))
        assert (refused.value.status, refused.value.code) == (400, "unknown_parameter")
        assert refused.value.field == name


def test_a_field_of_the_models_allow_list_reaches_the_engine():
    offered = offer(parameters=["top_k", "min_tokens"])
    work = parse(top_k=7, min_tokens=2)
    work.bounds(offered)
    _, sampling = sent_to_vllm(work, offered)
    assert (sampling["top_k"], sampling["min_tokens"]) == (7, 2)


def test_nothing_from_an_allow_list_replaces_what_was_bounded():
    """Also where an operator's list holds a name that is the gateway's own."""
    offered = offer(parameters=["max_tokens", "n"])
    (ask,) = asked_of_vllm(parse(max_tokens=5, n=2), offered)
    loose = Ask(
        prompt=ask.prompt,
        tokens_in=None,
        choices=2,
        tokens_out_max=5,
        request=ask.request,
        parameters={"max_tokens": 10**6, "n": 64, "seed": 9},
    )
    sampling = msgspec.json.decode(msgspec.json.decode(Vllm().body(loose))["sampling_parameters"])
    assert (sampling["max_tokens"], sampling["n"]) == (5, 2)


@pytest.mark.parametrize(
    "message",
    [{"role": "tool", "content": "1", "tool_call_id": "1"},
     {"role": "assistant", "tool_calls": [CALL]}],
)  # fmt: skip
def test_tools_are_for_upstreams_whose_allow_list_has_them(message):
    work = parse(messages=[*ASK["messages"], message])
    for offered in (offer("vllm", ["tools"]), offer("openai")):
        with pytest.raises(CallerError) as refused:
            work.bounds(offered)
        assert refused.value.field == "messages"
    assert work.bounds(offer("openai", ["tools"])).rows == 1


def test_everything_an_ordinary_client_sends_is_accepted():
    work = parse(
        stream=True, stream_options={"include_usage": True}, max_completion_tokens=5, n=2, seed=1,
        temperature=0, top_p=1, stop="x", user="u", metadata={"trace": "1"},
        frequency_penalty=0, presence_penalty=0, logprobs=True, top_logprobs=3,
    )  # fmt: skip
    assert (work.model, work.stream) == ("tiny-lm", True)
    assert work.bounds(offer()).tokens_out_max == 10


@pytest.mark.parametrize("adapter", ["tensorrtllm"])
def test_log_probabilities_are_refused_where_the_engine_has_none(adapter):
    with pytest.raises(CallerError) as refused:
        parse(logprobs=True).bounds(offer(adapter))
    assert refused.value.field == "logprobs"


def test_an_engine_that_counts_nothing_is_not_served_without_a_tokenizer():
    with pytest.raises(WorldError) as refused:
        parse().bounds(offer("llmapi"))
    assert (refused.value.status, refused.value.code) == (503, "tokenizer_missing")
    assert "TOKENIZERS_DIR" in refused.value.message


@pytest.mark.parametrize(
    ("asked", "tokens_out"),
    [
        ({}, 10),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 5000}, 100),
        ({"max_completion_tokens": 5000}, 100),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"n": 3}, 30),
    ],
)
def test_the_output_is_bounded_by_what_was_asked_and_the_model_allows(asked, tokens_out):
    work = parse(**asked)
    assert work.bounds(offer()).tokens_out_max == tokens_out
    _, sampling = sent_to_vllm(work)
    assert sampling["max_tokens"] * sampling["n"] == tokens_out


def test_the_input_bound_counts_bytes_and_what_an_engine_may_add():
    work = parse()
    (prompt,) = work.prompts(offer())
    assert prompt.text == "user: héllo\nassistant:"
    assert work.bounds(offer()).tokens_in_max > len(prompt.text.encode()) > len(prompt.text)


def test_the_input_bound_is_never_beyond_the_models_context():
    work = parse(messages=[{"role": "user", "content": "x" * 100_000}])
    assert work.bounds(offer()).tokens_in_max == MODEL.context_tokens_max
    assert work.bounds(offer("openai")).tokens_in_max == MODEL.context_tokens_max


def test_the_reservation_is_the_worst_case_rounded_up():
    bounds = parse().bounds(offer())
    worst_pico = bounds.tokens_in_max * 3 + bounds.tokens_out_max * 5 + 7
    assert offer().cost_nano_max(bounds) == -(-worst_pico // 1000)


def test_only_listed_fields_reach_the_engine():
    body, sampling = sent_to_vllm(parse(user="me", metadata={"a": "b"}, stop=["x", "y"], seed=4))
    assert set(body) == {
        "text_input", "stream", "exclude_input_in_output",
        "return_num_input_tokens", "return_num_output_tokens", "return_finish_reason",
    }  # fmt: skip
    assert sampling == {"max_tokens": 10, "n": 1, "seed": 4, "stop": ["x", "y"]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ("", ""),
        (None, ""),
    ],
)
def test_content_is_text_parts_joined_or_nothing(content, text):
    work = parse(messages=[{"role": "user", "content": content}])
    (prompt,) = work.prompts(offer())
    assert prompt.text == f"user: {text}\nassistant:"


def test_a_conversation_is_written_once_for_a_model():
    work = parse()
    offered = offer()
    assert work.prompts(offered)[0] is work.prompts(offered)[0]
    other = offer(chat_template="{{ messages[0].content }}!")
    assert work.prompts(other)[0].text == "héllo!"


def event(text="x", tokens_in=3, tokens_out=1, reason="None", **extra):
    return {
        "text_output": text,
        "num_input_tokens": tokens_in,
        "num_output_tokens": tokens_out,
        "finish_reason": reason,
    } | extra


def answered(work, *events):
    """A reader and an answer that have had these events; the events of the stream."""
    offered = offer()
    (ask,) = asked_of_vllm(work, offered)
    reader = Vllm().reader(ask)
    answer = ChatAnswer(str(UUID(int=7)), 1_700_000_000, "tiny-lm", work.request)
    stream = answer.opening()
    stream += b"".join(answer.piece(0, reader.read(each)) for each in events)
    stream += answer.piece(0, reader.finish())
    return reader, answer, stream


def shaped(work, *events):
    """The data of every event of a stream."""
    reader, answer, stream = answered(work, *events)
    stream += answer.closing(reader.tokens_in, reader.tokens_out)
    assert stream.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(line[6:]) for line in stream.split(b"\n\n")[:-2]]


def test_a_tensor_of_one_comes_as_a_scalar_and_counts_alike():
    counts = []
    for each in (event(), event(["x"], 3, [1], ["None"])):
        reader, answer, stream = answered(parse(), each)
        counts.append((reader.tokens_in, reader.tokens_out, stream, answer.whole(3, 1)))
    assert counts[0] == counts[1]


def test_counts_are_summed_over_sequences_and_the_prompt_counted_once():
    reader, _, _ = answered(
        parse(n=3),
        event(["x", "", "z"], 3, [1, 0, 1], ["None", "stop", "None"]),
        event(["x", "", "z"], 3, [2, 0, 1], ["stop", "stop", "stop"]),
    )
    assert (reader.tokens_in, reader.tokens_out) == (3, 5)


@pytest.mark.parametrize("lost", ["num_input_tokens", "num_output_tokens", "text_output"])
def test_an_answer_without_counts_cannot_be_sold(lost):
    chunk = event()
    del chunk[lost]
    with pytest.raises(WorldError) as refused:
        answered(parse(), chunk)
    assert refused.value.status == 502


@pytest.mark.parametrize(
    "wrong",
    [event(["a", "b"], 3, [1, 1]), event(tokens_out=[1, 1]), event(7), event(tokens_out="1")],
)
def test_an_answer_of_another_shape_than_asked_cannot_be_sold(wrong):
    with pytest.raises(WorldError) as refused:
        answered(parse(), wrong)
    assert refused.value.code == "unmeasurable_answer"


def test_a_stream_begins_with_the_role_and_ends_with_reason_usage_and_done():
    work = parse(stream=True, stream_options={"include_usage": True})
    lines = shaped(work, event("he"), event("llo", reason="length"))
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
    assert {line["model"] for line in lines} == {"tiny-lm"}


def test_usage_is_not_mentioned_unless_asked_for():
    assert not any("usage" in line for line in shaped(parse(stream=True), event()))


def test_a_reason_the_engine_forgot_is_stop():
    last = shaped(parse(stream=True), event())[-1]
    assert last["choices"][0]["finish_reason"] == "stop"


def test_choices_keep_their_index():
    lines = shaped(
        parse(stream=True, n=2),
        event(["a", "b"], 3, [1, 1], ["None", "stop"]),
        event(["c", ""], 3, [1, 0], ["None", "stop"]),
    )
    texts = ["", ""]
    for line in lines:
        choice = line["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["ac", "b"]
    reasons = [line["choices"][0]["finish_reason"] for line in lines]
    assert [reason for reason in reasons if reason] == ["stop", "stop"]  # each told once


def test_a_plain_answer_is_the_stream_collected():
    _, answer, _ = answered(parse(), event("he"), event("llo", reason="length"))
    whole = msgspec.json.decode(answer.whole(3, 2))
    assert whole["object"] == "chat.completion"
    assert whole["id"] == f"chatcmpl-{UUID(int=7)}"
    assert whole["choices"][0]["message"]["content"] == "hello"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["total_tokens"] == 5


def place(token, logprob, *others):
    """One place of a sequence as the vLLM backend tells it: the chosen token first."""
    ranked = [(token, logprob, len(others) + 1), *[(t, p, i + 1) for i, (t, p) in others]]
    return {
        str(number): {"logprob": p, "rank": rank, "decoded_token": t}
        for number, (t, p, rank) in enumerate(ranked)
    }


def test_log_probabilities_are_the_engines_with_the_likeliest_beside_them():
    told = json.dumps([place("hé", -0.5, (0, ("ho", -0.25)))])
    work = parse(logprobs=True, top_logprobs=1)
    body, sampling = sent_to_vllm(work)
    assert (body["return_logprobs"], sampling["logprobs"]) == (True, 1)
    _, answer, stream = answered(work, event("hé", logprobs=told))
    (found,) = msgspec.json.decode(answer.whole(3, 1))["choices"][0]["logprobs"]["content"]
    assert (found["token"], found["logprob"], found["bytes"]) == ("hé", -0.5, [104, 195, 169])
    assert [each["token"] for each in found["top_logprobs"]] == ["ho"]
    assert b'"logprob":-0.5' in stream


@pytest.mark.parametrize(
    "told",
    ["null", "nonsense", "[7]", "[{}]", '[{"1": {}}]', None, [[]], [], ["[]"] * 9, "[" * 100_000],
)
def test_log_probabilities_that_cannot_be_read_do_not_cost_the_answer(told):
    work = parse(logprobs=True, n=2)
    _, answer, _ = answered(work, event(["x", "y"], 3, [1, 1], logprobs=told))
    choices = msgspec.json.decode(answer.whole(3, 2))["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["x", "y"]


def test_what_is_never_is_written_as_a_number():
    told = '[{"1": {"logprob": -Infinity, "rank": 1, "decoded_token": "x"}}]'
    _, answer, _ = answered(parse(logprobs=True), event("x", logprobs=told))
    (found,) = msgspec.json.decode(answer.whole(3, 1))["choices"][0]["logprobs"]["content"]
    assert found["logprob"] == -9999.0
