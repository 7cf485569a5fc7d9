"""An OpenAI-compatible upstream's stream, byte by byte. No I/O: bytes in, bytes and counts out."""

import itertools
import json
import random

import pytest

from meterplane.gateway.adapters.openai_stream import EVENT_BYTES_MAX, OpenAIStream

DONE = b"data: [DONE]\n\n"


def chunk(text="word ", index=0, **extra):
    body = {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(body | extra, separators=(",", ":")).encode() + b"\n\n"


def totals(tokens_in=4, tokens_out=3, **extra):
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": 7}
    return (
        b"data: "
        + json.dumps({"id": "c", "choices": [], "usage": usage} | extra).encode()
        + (b"\n\n")
    )


def running(text, tokens_out, index=0):
    usage = {"prompt_tokens": 4, "completion_tokens": tokens_out, "total_tokens": 4 + tokens_out}
    return chunk(text, index, usage=usage)


def read(*blocks, strip=True, continuous=False):
    stream = OpenAIStream(strip_usage=strip, continuous=continuous)
    passed = b"".join(stream.feed(block) for block in blocks)
    stream.finish()
    return passed, stream


def state(passed, stream):
    return (
        passed,
        stream.tokens_in,
        stream.tokens_out,
        stream.chunks_out,
        stream.reported,
        stream.done,
        str(stream.failure),
    )


def texts(passed):
    events = [json.loads(line[6:]) for line in passed.decode().split("\n\n") if line]
    return "".join(c["delta"].get("content", "") for e in events for c in e["choices"])


NULL_FIRST = b'data: {"usage": null, "id":"c","choices":[{"index":0,"delta":{"content":"n"}}]}\n\n'
ERROR = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
SCRIPTS = {
    "plain": chunk("he") + chunk("llo") + DONE,
    "usage, as vLLM": chunk(usage=None) + chunk(usage=None) + totals() + DONE,
    "null in front": NULL_FIRST + totals() + DONE,
    "no end mark but totals": chunk() + totals(),
    "no end mark": chunk() + chunk(),
    "end mark without its blank line": chunk() + b"data: [DONE]",
    "carriage returns": (chunk() + totals() + DONE).replace(b"\n", b"\r\n"),
    "only carriage returns": (chunk() + totals() + DONE).replace(b"\n", b"\r"),
    "comments": b": ping\n\n" + chunk() + b": ping\n\n" + totals() + DONE,
    "named events": b"event: x\nid: 7\n" + chunk() + DONE,
    "end mark inside text": chunk("data: [DONE]\n\n") + chunk("[DONE]") + totals() + DONE,
    "usage inside text": chunk('{"usage": {"prompt_tokens": 9}},"usage":null') + totals() + DONE,
    "error inside text": chunk('"error": {"message": "no"}') + totals() + DONE,
    "error": chunk("a") + ERROR + chunk("b") + DONE,
    "bare error": chunk("a") + b'data: {"error": "gone"}\n\n',
    "null error": chunk("a", error=None) + totals() + DONE,
    "not JSON": chunk("a") + b'data: {"usage": {]\n\n' + chunk("b"),
    "running totals": running("a", 1) + running("b", 2) + totals(4, 2) + DONE,
    "running, two choices": running("a", 1) + running("b", 1, 1) + totals(4, 2) + DONE,
    "running, cut": running("a", 1) + running("b", 2),
    "after the end": chunk() + DONE + chunk("never") + totals(9, 9),
    "many data lines": b'data: {"choices": [],\ndata: "usage": {"prompt_tokens": 4}}\n\n' + DONE,
    "letters of several bytes": chunk("héllo 🙂 漢字") + totals() + DONE,
}


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", SCRIPTS)
def test_any_split_of_the_same_bytes_gives_the_same_output_and_counts(name, continuous, strip):
    script = SCRIPTS[name]
    options = {"strip": strip, "continuous": continuous}
    whole = state(*read(script, **options))
    assert state(*read(*[bytes([byte]) for byte in script], **options)) == whole
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(30):
        cuts = sorted(chance.sample(range(len(script) + 1), chance.randrange(1, 12)))
        borders = [0, *cuts, len(script)]
        blocks = [script[a:b] for a, b in itertools.pairwise(borders)]
        assert state(*read(*blocks, **options)) == whole, blocks


@pytest.mark.parametrize("name", ["usage, as vLLM", "null in front", "carriage returns"])
def test_who_did_not_ask_for_usage_does_not_see_it(name):
    passed, stream = read(SCRIPTS[name])
    assert b"usage" not in passed
    assert (stream.tokens_in, stream.tokens_out) == (4, 3)


def test_who_asked_for_usage_sees_it_as_it_came():
    passed, _ = read(SCRIPTS["usage, as vLLM"], strip=False)
    assert passed + DONE == SCRIPTS["usage, as vLLM"]


def test_running_totals_are_taken_out_again():
    passed, stream = read(SCRIPTS["running totals"], continuous=True)
    assert b"usage" not in passed
    assert texts(passed) == "ab"
    assert stream.tokens_out == 2
    passed, _ = read(SCRIPTS["running totals"], continuous=True, strip=False)
    usages = [json.loads(line[6:])["usage"] for line in passed.decode().split("\n\n") if line]
    assert usages[:-1] == [None, None]
    assert usages[-1]["completion_tokens"] == 2


def test_a_stream_that_is_left_is_counted_by_its_running_totals():
    stream = OpenAIStream(strip_usage=True, continuous=True)
    stream.feed(running("several words at once", 5))
    assert (stream.reported, stream.tokens_in, stream.tokens_out) == (True, 4, 5)


def test_running_totals_of_one_choice_do_not_hide_the_others():
    stream = OpenAIStream(strip_usage=True, continuous=True)
    for number in range(1, 4):
        stream.feed(running("a", number, 0) + running("b", number, 1))
    assert stream.tokens_out == 6


def test_the_totals_at_the_end_are_the_engines_word_also_when_chunks_were_more():
    _, stream = read(chunk(), chunk(), chunk(), totals(4, 2), DONE)
    assert stream.tokens_out == 2


@pytest.mark.parametrize("name", ["end mark inside text", "usage inside text", "error inside text"])
def test_text_is_text_whatever_it_says(name):
    passed, stream = read(SCRIPTS[name])
    assert stream.failure is None
    assert (stream.done, stream.tokens_in, stream.tokens_out) == (True, 4, 3)
    assert passed == SCRIPTS[name][: passed.__len__()]  # not a byte of it was changed


def test_what_came_before_an_error_is_passed_on_and_nothing_after_it():
    passed, stream = read(SCRIPTS["error"])
    assert texts(passed) == "a"
    assert stream.failure is not None
    assert (stream.failure.status, stream.failure.message) == (502, "out of memory")


@pytest.mark.parametrize("name", ["no end mark", "running, cut", "not JSON"])
def test_a_stream_that_stops_early_is_broken(name):
    _, stream = read(SCRIPTS[name], continuous=True)
    assert stream.failure is not None
    assert stream.failure.code == "upstream_broken"


@pytest.mark.parametrize("name", ["no end mark but totals", "end mark without its blank line"])
def test_a_stream_that_said_all_there_is_has_ended(name):
    _, stream = read(SCRIPTS[name])
    assert stream.failure is None


def test_half_an_event_never_reaches_the_caller():
    passed, stream = read(chunk("a"), chunk("b")[:-9])
    assert texts(passed) == "a"
    assert stream.failure is not None


def test_chunks_without_output_are_no_tokens():
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    _, stream = read(role, chunk(), last, DONE)
    assert (stream.reported, stream.chunks_out) == (False, 1)


def test_an_event_without_end_is_not_kept_for_ever():
    stream = OpenAIStream(strip_usage=True)
    for _ in range(EVENT_BYTES_MAX // 65_536 + 1):
        stream.feed(b"x" * 65_536)
    assert stream.failure is not None


@pytest.mark.parametrize("half", [{"prompt_tokens": 5}, {"completion_tokens": 5}, {}])
def test_a_usage_that_does_not_tell_both_counts_is_none(half):
    """Else the half that is missing would be free."""
    ending = b"data: " + json.dumps({"choices": [], "usage": half}).encode() + b"\n\n"
    passed, stream = read(chunk(), chunk(), ending, DONE)
    assert (stream.reported, stream.chunks_out) == (False, 2)
    assert b"usage" not in passed


@pytest.mark.parametrize("count", [-1, 2**31, 1.5, "3", True])
def test_a_count_that_cannot_be_breaks_the_stream(count):
    usage = {"prompt_tokens": 4, "completion_tokens": count}
    ending = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    _, stream = read(chunk(), ending, DONE)
    assert stream.failure is not None
    assert stream.failure.code == "upstream_broken"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (b'{"message": "no room", "type": "x", "code": 500}', "no room"),
        (b'"gone"', "gone"),
        (b"[]", "the inference server failed"),
        (b"503", "503"),
        (b"true", "True"),
    ],
)
def test_an_error_is_one_whatever_its_form(error, message):
    _, stream = read(chunk(), b'data: {"error": ' + error + b"}\n\n")
    assert stream.failure is not None
    assert (stream.failure.code, stream.failure.message) == ("upstream_failed", message)
