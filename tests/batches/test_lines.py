"""The reader of a batch's file, from bytes to lines or complaints."""

import io
import json

import pytest

from meterplane.batches import lines
from meterplane.batches.limits import EMBEDDING_INPUTS_MAX, ERRORS_MAX, LINE_BYTES_MAX, LINES_MAX
from tests.batches.conftest import CHAT, jsonl, request_line


def read(content: bytes, endpoint: str = CHAT) -> lines.Input:
    return lines.read(io.BytesIO(content), endpoint)


def test_each_good_line_is_found_where_it_is():
    content = (
        jsonl(request_line("a", "x"), request_line("b", "y"))
        + json.dumps(request_line("c", "z")).encode()
    )
    found = read(content)
    assert (found.errors, found.model) == ([], "tiny-lm")
    assert [(line.line_no, line.custom_id) for line in found.lines] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]
    bodies = [
        json.loads(lines.body_of(content[line.start_byte : line.start_byte + line.size_bytes]))
        for line in found.lines
    ]
    assert [body["messages"][0]["content"] for body in bodies] == ["x", "y", "z"]


def test_a_body_is_handed_on_as_it_was_written():
    raw = b'{"custom_id":"a","method":"POST","url":"%s", "body": {"model":"m", "t": 1.10e0 } }' % (
        CHAT.encode()
    )
    assert read(raw).errors == []
    assert lines.body_of(raw) == b'{"model":"m", "t": 1.10e0 }'


def test_empty_lines_windows_lines_and_a_byte_order_mark_are_passed_over():
    good = json.dumps(request_line("a")).encode()
    content = b"\xef\xbb\xbf" + good + b"\r\n\r\n  \n" + good.replace(b'"a"', b'"b"') + b"\r\n"
    found = read(content)
    assert found.errors == []
    assert [line.line_no for line in found.lines] == [1, 4]
    for line in found.lines:
        part = content[line.start_byte : line.start_byte + line.size_bytes]
        assert json.loads(lines.body_of(part))["model"] == "tiny-lm"


def changed_body(**changed):
    return {"body": request_line("x")["body"] | changed}


WRONG = [
    (b"not json\n", "invalid_json_line", None),
    (b"[1]\n", "invalid_request", None),
    (b"\xff\xfe\n", "invalid_json_line", None),
    (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
    (b"[" * 100_000 + b"\n", "invalid_request", None),
    (b'{"custom_id":"a","method":"POST","url":"' + CHAT.encode() + b'","body":' + b"[" * 100_000
     + b"]" * 100_000 + b"}\n", "invalid_json_line", None),
    ({"custom_id": 7}, "invalid_request", None),
    ({"custom_id": ""}, "invalid_custom_id", "custom_id"),
    ({"custom_id": "a\0"}, "invalid_custom_id", "custom_id"),
    ({"custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
    ({"method": "GET"}, "invalid_method", "method"),
    ({"url": "/v1/embeddings"}, "invalid_url", "url"),
    ({"priority": 1}, "invalid_request", None),
    ({"body": []}, "invalid_request", "body"),
    ({"body": {"messages": []}}, "invalid_request", "body"),
    (changed_body(model=""), "invalid_request", "body.model"),
    (changed_body(model=3), "invalid_request", "body"),
    (changed_body(stream=True), "stream_not_offered", "body.stream"),
    (changed_body(stream="yes"), "invalid_request", "body"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code", "param"), WRONG)
def test_a_wrong_line_is_named_with_what_is_wrong(given, code, param):
    wrong = given if isinstance(given, bytes) else jsonl(request_line("wrong") | given)
    found = read(jsonl(request_line("good")) + wrong)
    assert [(e["code"], e["line"], e["param"]) for e in found.errors] == [(code, 2, param)]
    assert 0 < len(found.errors[0]["message"]) <= 500
    json.dumps(found.errors).encode()


def test_stream_false_is_what_a_batch_does():
    assert read(jsonl(request_line("a") | changed_body(stream=False))).errors == []


def test_a_custom_id_is_used_once_and_a_model_is_one():
    found = read(
        jsonl(request_line("a"), request_line("a"), request_line("b") | changed_body(model="other"))
    )
    assert [(e["code"], e["line"]) for e in found.errors] == [
        ("duplicate_custom_id", 2),
        ("mismatched_model", 3),
    ]


def test_a_line_over_a_megabyte_is_named_and_the_next_one_is_still_read():
    long = json.dumps(request_line("long", "x" * (3 * LINE_BYTES_MAX))).encode() + b"\n"
    found = read(long + jsonl(request_line("b")) + b"junk\n")
    assert [(e["code"], e["line"]) for e in found.errors] == [
        ("line_too_long", 1),
        ("invalid_json_line", 3),
    ]
    assert [line.custom_id for line in found.lines] == ["b"]


def test_fifty_thousand_lines_are_read_and_one_more_is_refused():
    def content(count):
        return jsonl(*(request_line(str(number)) for number in range(count)))

    assert len(read(content(LINES_MAX)).lines) == LINES_MAX
    found = read(content(LINES_MAX + 3))
    assert [(e["code"], e["line"]) for e in found.errors] == [("too_many_tasks", LINES_MAX + 1)]


def test_complaints_end_at_a_hundred():
    assert len(read(b"junk\n" * 1_000).errors) == ERRORS_MAX


def test_an_empty_file_says_so():
    for content in (b"", b"\n \n"):
        assert [e["code"] for e in read(content).errors] == ["empty_file"]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("text", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 0), (None, 1),
    ],
)  # fmt: skip
def test_inputs_of_embeddings_are_counted_as_openai_does(given, inputs):
    def line(custom_id, value):
        body = {"model": "m", "input": value}
        return request_line(custom_id) | {"url": "/v1/embeddings", "body": body}

    room = EMBEDDING_INPUTS_MAX - inputs
    fits = jsonl(line("a", given), line("b", ["x"] * room))
    over = jsonl(line("a", given), line("b", ["x"] * (room + 1)))
    assert read(fits, "/v1/embeddings").errors == []
    assert [e["code"] for e in read(over, "/v1/embeddings").errors] == ["too_many_inputs"]
