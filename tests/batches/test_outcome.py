"""What an attempt comes to, as a table."""

import json

import pytest

from meterplane.batches.claim import ClaimedLine
from meterplane.batches.limits import ATTEMPTS_MAX, BACKOFF_S_MAX
from meterplane.batches.outcome import (
    Again,
    Answer,
    Ended,
    NoAnswer,
    Unreachable,
    ends_the_batch,
    judge,
    one_line,
)
from meterplane.kernel.ids import uuid7


def line(attempts: int = 0, was_sent: bool = False) -> ClaimedLine:
    return ClaimedLine(uuid7(), uuid7(), 0, 1, attempts, was_sent)


def answer(status: int, body: bytes = b"{}", retry_after: str | None = None) -> Answer:
    return Answer(status, body, retry_after)


@pytest.mark.parametrize("status", [400, 402, 403, 404, 413, 422, 500, 502, 504])
def test_a_refusal_is_the_lines_result(status):
    found = judge(line(), answer(status, b'{ "error": {"code": "x"} }'))
    assert found == Ended(found.line_id, False, status, b'{"error":{"code":"x"}}')


def test_an_answer_is_the_lines_result_with_the_tokens_it_tells():
    body = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}'
    found = judge(line(), answer(200, body))
    assert isinstance(found, Ended)
    assert (found.completed, found.http_status, found.tokens_in, found.tokens_out) == (
        True, 200, 5, 7,
    )  # fmt: skip


@pytest.mark.parametrize(
    "usage", [b"null", b"3", b'{"prompt_tokens": -5}', b'{"prompt_tokens": "many"}', b"[]"]
)
def test_usage_that_makes_no_sense_counts_nothing_and_fails_nothing(usage):
    found = judge(line(), answer(200, b'{"usage": %s}' % usage))
    assert isinstance(found, Ended)
    assert (found.completed, found.tokens_in, found.tokens_out) == (True, 0, 0)


def test_an_answered_wait_is_another_request_and_no_longer_sent():
    held = line(attempts=3)
    for status, attempts in ((429, 3), (503, 4)):
        found = judge(held, answer(status, retry_after="7"))
        assert isinstance(found, Again)
        assert found.request_id != held.request_id
        assert (found.sent, found.attempts) == (False, attempts)
        assert found.after_s >= 7


def test_no_answer_is_the_same_request_again():
    held = line()
    found = judge(held, NoAnswer("reset"))
    assert found == Again(held.id, held.request_id, True, 1, 2)


@pytest.mark.parametrize("was_sent", [True, False])
def test_what_was_not_sent_leaves_everything_as_it_was(was_sent):
    held = line(attempts=4, was_sent=was_sent)
    found = judge(held, Unreachable("refused"))
    assert isinstance(found, Again)
    assert (found.request_id, found.sent, found.attempts) == (held.request_id, was_sent, 4)


def test_waiting_for_a_model_ends_waiting_for_a_rate_limit_does_not():
    last = line(attempts=ATTEMPTS_MAX - 1)
    assert judge(last, answer(503)) == Ended(last.id, False, 503, b"{}")
    given_up = judge(last, NoAnswer("reset"))
    assert isinstance(given_up, Ended)
    assert json.loads(given_up.body)["code"] == "no_answer"
    assert isinstance(judge(line(attempts=10_000), answer(429)), Again)


@pytest.mark.parametrize("retry_after", [None, "", "soon", "-1", "1.5", "\u0663", "9" * 30])
def test_any_retry_after_is_a_bounded_wait(retry_after):
    found = judge(line(), answer(429, retry_after=retry_after))
    assert isinstance(found, Again)
    assert 1 <= found.after_s <= BACKOFF_S_MAX


def test_only_a_dead_key_ends_the_batch():
    def told(status, code):
        return ends_the_batch(
            answer(status, json.dumps({"error": {"code": code, "message": "m"}}).encode())
        )

    assert told(401, "invalid_api_key") == b'{"code":"invalid_api_key","message":"m"}'
    assert told(403, "account_suspended") is not None
    assert told(403, "model_not_allowed") is None
    assert told(404, "model_not_found") is None
    assert ends_the_batch(answer(401, b"<html>")) is not None
    assert ends_the_batch(NoAnswer("x")) is None


def test_an_answer_over_every_bound_is_an_error_of_that_line():
    found = judge(line(), Answer(200, None, None))
    assert isinstance(found, Ended)
    assert not found.completed
    assert json.loads(found.body)["code"] == "answer_too_large"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{\n  "a": 1.10,\n "b": 12345678901234567890 }', b'{"a":1.10,"b":12345678901234567890}'),
        (b"plain\ntext", b'"plain\\ntext"'),
        (b"", b'""'),
        (b'{"a": "line\\nbreak"}', b'{"a":"line\\nbreak"}'),
        (b"\xff", '"\ufffd"'.encode()),
        (b'{"a": 1} trailing', b'"{\\"a\\": 1} trailing"'),
    ],
)  # fmt: skip
def test_a_body_becomes_one_line_without_changing_it(body, kept):
    assert one_line(body) == kept
    assert b"\n" not in one_line(body)
    json.loads(one_line(body))
