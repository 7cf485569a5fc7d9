"""What one request may cost the worker's event loop before it is admitted: its size is bounded."""

import tracemalloc

import msgspec
import pytest

from meterplane.gateway.prompts import Prompts
from meterplane.gateway.surfaces import openai_chat, openai_completions, openai_embeddings
from meterplane.gateway.surfaces.openai_chat import CONTENT_PARTS_MAX, TOOL_CALLS_MAX, VALUES_MAX
from meterplane.gateway.surfaces.openai_tokens import TOKEN_IDS_MAX
from meterplane.kernel.errors import CallerError
from tests.gateway import test_openai_completions as completions
from tests.gateway.openai_doubles import make_tokenizer

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PART = {"type": "text", "text": 'a \\"b\\", [c]'}


def chat(messages):
    return openai_chat.parse(msgspec.json.encode({"model": "m", "messages": messages}))


def calling(count):
    return {"role": "assistant", "tool_calls": [{}] * count}


def saying(count):
    return {"role": "user", "content": [PART] * count}


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([calling(TOOL_CALLS_MAX + 1)], "messages[0].tool_calls"),
        ([calling(TOOL_CALLS_MAX), calling(1)], "messages[1].tool_calls"),
        ([saying(CONTENT_PARTS_MAX + 1)], "messages[0].content"),
        ([saying(CONTENT_PARTS_MAX), saying(1)], "messages[1].content"),
    ],
)
def test_a_conversation_is_bounded_over_all_its_messages(messages, field):
    with pytest.raises(CallerError) as refused:
        chat(messages)
    assert (refused.value.status, refused.value.field) == (400, field)


def test_the_largest_conversation_is_read():
    longest = {"role": "assistant", "content": [PART] * 4, "tool_calls": [CALL]}
    assert len(chat([longest] * openai_chat.MESSAGES_MAX).request.messages) == 1024
    # Commas and brackets that are said are not values, whatever is escaped around them.
    said = '[{,"\\"\\' * VALUES_MAX
    assert chat([{"role": "user", "content": said}]).request.messages[0].content == said


@pytest.mark.parametrize(
    "values",
    [
        b"{}," * 5_500_000 + b"{}",
        b"[[]]," * 3_000_000 + b"1",
        b",".join([b"[" * 400 + b"]" * 400] * 19_000),
        b'"",' * 5_000_000 + b'""',
        rb'"\\",' * 3_000_000 + b'""',
    ],
    ids=["objects", "arrays", "nests", "strings", "backslashes"],
)
@pytest.mark.parametrize("field", ["messages", "tools"])
def test_millions_of_values_are_refused_before_they_are_made(values, field):
    body = b'{"model":"m","%b":[{"a":[%b]}]}' % (field.encode(), values)
    tracemalloc.start()
    try:
        with pytest.raises(CallerError) as refused:
            openai_chat.parse(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refused.value.status, refused.value.field) == (400, field)
    assert "32,768 values" in str(refused.value)
    # Copies of the body, not objects of 64 bytes each.
    assert peak_bytes < 4 * len(body)


@pytest.mark.parametrize(
    "prompt",
    [[1] * (TOKEN_IDS_MAX + 1), [[1] * TOKEN_IDS_MAX, [1]], [1] * 3_300_000, [[1, 2]] * 70_000],
    ids=["one", "two", "millions", "arrays"],
)
@pytest.mark.parametrize(
    ("surface", "field"), [(openai_completions, "prompt"), (openai_embeddings, "input")]
)
def test_token_ids_are_bounded_over_all_prompts(surface, field, prompt):
    with pytest.raises(CallerError) as refused:
        surface.parse(msgspec.json.encode({"model": "m", field: prompt}))
    assert (refused.value.status, refused.value.field) == (400, field)


def test_as_many_token_ids_as_the_longest_context_are_read():
    (piece,) = completions.parse(prompt=[1] * TOKEN_IDS_MAX).pieces
    assert len(piece) == TOKEN_IDS_MAX


def test_token_ids_beyond_the_models_context_are_refused_in_openais_words():
    context = completions.MODEL.context_tokens_max
    offered = completions.offer("openai")
    with pytest.raises(CallerError) as refused:
        completions.parse(prompt=[[1], [1] * (context + 1)]).bounds(offered)
    assert (refused.value.code, refused.value.field) == ("context_length_exceeded", "prompt")
    assert completions.parse(prompt=[1] * context).bounds(offered).rows == 1


async def counting(folder):
    """An offer whose tokenizer is here."""
    make_tokenizer(folder / "words")
    prompts, plain = Prompts(folder), completions.offer()
    serving = msgspec.structs.replace(plain.serving, tokenizer="words")
    await prompts.make_ready(serving)
    return msgspec.structs.replace(plain, serving=serving, prompts=prompts)


async def test_a_prompt_counted_at_once_is_refused_before_it_is_admitted(tmp_path):
    offered = await counting(tmp_path)
    model = msgspec.structs.replace(offered.model, context_tokens_max=100)
    offered = msgspec.structs.replace(offered, model=model)
    with pytest.raises(CallerError) as refused:
        completions.parse(prompt="one " * 101).bounds(offered)
    assert (refused.value.code, refused.value.field) == ("context_length_exceeded", "prompt")


async def test_many_long_prompts_are_bounded_by_their_bytes_and_not_counted_yet(tmp_path):
    offered = await counting(tmp_path)
    work = completions.parse(prompt=["one " * 1000] * openai_completions.PROMPTS_MAX)
    bounds = work.bounds(offered)
    assert [each.tokens for each in work.prompts(offered)] == [1000] + [None] * 127
    # 8 is what an engine may put around each, and no prompt is longer than the context.
    assert bounds.tokens_in_max == (1000 + 8) + 127 * (4000 + 8)
