"""Triton's server-sent events: any cut gives the same events, and nothing else is taken for one."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.triton.failures import TritonBroken
from meterplane.triton.generate import EVENT_BYTES_MAX, EventReader, error_text, failure_of

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
