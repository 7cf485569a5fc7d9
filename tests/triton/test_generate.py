"""Triton's server-sent events: any cut gives the same events, and nothing else is taken for one."""

import random
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.triton.failures import TritonBroken
from meterplane.triton.generate import (
    DONE,
    EVENT_BYTES_MAX,
    EventReader,
    RawEvents,
    error_text,
    failure_of,
)

EVENTS: list[dict[str, Any]] = [
    {"text_output": "Ünïcode \n\n data: inside", "num_output_tokens": 1},
    {"text_output": "", "finish_reason": "stop", "num_output_tokens": [1, 2]},
    {"error": "it broke"},
]
BODY = b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in EVENTS)


@given(cuts=st.lists(st.integers(0, len(BODY)), max_size=12), crlf=st.booleans())
def test_events_are_the_same_however_they_are_cut(cuts, crlf):
    body = BODY.replace(b"\n", b"\r\n") if crlf else BODY
    edges = [0, *sorted(cuts), len(body)]
    reader = EventReader()
    events = []
    for start, end in pairwise(edges):
        events += reader.feed(body[start:end])
    reader.finish()
    assert events == EVENTS


def read_at_once(body: bytes) -> list[bytes]:
    """The data of a whole body's events, as the format defines it, without any hurry."""
    events, data = [], []
    for line in re.split(rb"\r\n|\n|\r", body)[:-1]:
        if line == b"":
            if joined := b" ".join(data).strip():
                events.append(joined)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].strip())
    return events


def some_body(dice: random.Random) -> bytes:
    """Mostly what servers send, sometimes everything else a server could."""
    if dice.random() < 0.3:
        odd = [
            b"\r",
            b"\n",
            b"\r\n",
            b"data:",
            b"data: ",
            b"x",
            b" ",
            b":",
            b"\xc3",
            b"{}",
            b"\x00",
        ]
        return b"".join(dice.choice(odd) for _ in range(dice.randrange(40)))
    ends = dice.choice([[b"\n"], [b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"]])
    body = b""
    for number in range(dice.randrange(6)):
        lines = [b'data: {"n":%d}' % number]
        if dice.random() < 0.2:
            lines.insert(dice.randrange(2), dice.choice([b": note", b"id: 1", b"data:", b"data"]))
        if dice.random() < 0.1:
            lines = [b'data:{"n":', b"data:%d}" % number]
        body += b"".join(line + dice.choice(ends) for line in [*lines, b""])
    return body + dice.choice([b"", b"data: [DONE]" + 2 * ends[0], b'data: {"cut'])


def test_ten_thousand_cuts_give_what_reading_at_once_gives():
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(10_000):
        body = some_body(dice)
        edges = [0, *sorted(dice.choices(range(len(body) + 1), k=dice.randrange(9))), len(body)]
        reader = RawEvents()
        events = [e for a, b in pairwise(edges) for e in reader.feed(body[a:b])]
        assert events == read_at_once(body), (body, edges)


def test_the_data_of_an_event_is_passed_on_as_it_came():
    reader = RawEvents()
    assert reader.feed(b'data: {"a" :  1.0}\n\ndata: [DONE]\n\n') == [b'{"a" :  1.0}', DONE]
    assert reader.feed(b'data: {"a":\ndata: 1}\n\n') == [b'{"a": 1}']  # and stays one line
    reader.finish()


def test_an_event_costs_its_length_in_however_many_pieces_it_comes():
    """It was quadratic: what had come was copied with every byte that followed."""
    event = b'data: {"a":"' + b"x" * 200_000 + b'"}\n\n'
    reader = EventReader()
    events = [e for i in range(len(event)) for e in reader.feed(event[i : i + 1])]
    assert [len(e["a"]) for e in events] == [200_000]


@pytest.mark.parametrize("size", [1, 1000, EVENT_BYTES_MAX])
def test_an_event_is_too_large_however_it_comes(size):
    block = b"data: " + b"x" * (EVENT_BYTES_MAX - 6)
    for events, end in ((1, b"\n\n"), (0, b"x\n\n")):
        reader, body = RawEvents(), block + end
        begin = len(body) - 10 * size if size < 1000 else 0
        pieces = [body[:begin], *(body[i : i + size] for i in range(begin, len(body), size))]
        if events:
            assert sum(len(reader.feed(piece)) for piece in pieces) == 1
        else:
            with pytest.raises(TritonBroken, match="larger"):
                [reader.feed(piece) for piece in pieces]


def test_deep_and_broken_json_is_the_servers_fault():
    for data in (b"[" * 100_000, b'{"a":' * 50_000, b'{"a":"\xff"}', b"\xff", b"{" * 9):
        with pytest.raises(TritonBroken):
            EventReader().feed(b"data: " + data + b"\n\n")


def test_events_come_one_byte_at_a_time():
    reader = EventReader()
    events = [event for i in range(len(BODY)) for event in reader.feed(BODY[i : i + 1])]
    reader.finish()
    assert events == EVENTS


def test_comments_and_other_fields_are_no_events():
    assert EventReader().feed(b': ping\n\nevent: x\nid: 1\ndata: {"a":1}\n\n\n\n') == [{"a": 1}]


@pytest.mark.parametrize("data", [b"data: {not json}\n\n", b"data: [1]\n\n", b"data: [DONE]\n\n"])
def test_what_is_not_an_object_is_no_event(data):
    with pytest.raises(TritonBroken):
        EventReader().feed(data)


def test_a_body_that_ends_inside_an_event_is_not_whole():
    reader = EventReader()
    assert reader.feed(BODY[:-1]) == EVENTS[:-1]
    with pytest.raises(TritonBroken, match="inside"):
        reader.finish()


def test_an_event_without_end_is_not_collected_for_ever():
    reader = EventReader()
    piece = b"x" * 65536
    for _ in range(EVENT_BYTES_MAX // len(piece)):
        assert reader.feed(piece) == []
    with pytest.raises(TritonBroken, match="larger"):
        reader.feed(piece)


def test_an_error_inside_a_success_is_seen():
    assert [failure_of(event) for event in EVENTS] == [None, None, "it broke"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"no such model"}', "no such model"),
        (b'data: {"error":"bad prompt"}\n\n', "bad prompt"),
        (b"", "the inference server refused the request"),
        (b"<html>", "the inference server refused the request"),
        (b'{"error":{"a":1}}', "the inference server refused the request"),
        (b'{"error":"' + b"x" * 5000 + b'"}', "x" * 2000),
    ],
)
def test_the_text_of_a_refusal_is_found_and_bounded(body, text):
    assert error_text(body) == text
