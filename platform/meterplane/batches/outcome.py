"""What one attempt at a line came to: an answer that is the line's result, or a reason to wait.

Pure. A refusal that only asks to wait (429, 503) is answered, so nothing was served: the next
attempt is a request of its own. An attempt without an answer may have been served and metered: the
next one is the same request, and metering keeps the first that came to its end. What a killed
gateway did not bring to an end is an event of its own.
"""

from dataclasses import dataclass
from uuid import UUID

import msgspec

from meterplane.batches.claim import ClaimedLine
from meterplane.batches.limits import (
    ANSWER_BYTES_MAX,
    ATTEMPTS_MAX,
    AWAY_S,
    BACKOFF_S_MAX,
    PAUSE_S_MAX,
)
from meterplane.kernel.ids import uuid7

TOKENS_MAX = 2**31 - 1  # of one line; a body that claims more tells nothing


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway answered. `body` is None when it was larger than anything it may send."""

    status: int
    body: bytes | None
    retry_after: str | None


class Unreachable(Exception):
    """No connection: the request was not sent."""


class NoAnswer(Exception):
    """The request was sent, and no whole answer came."""


Attempt = Answer | Unreachable | NoAnswer


@dataclass(frozen=True, slots=True)
class Ended:
    """The line has its result. Without `http_status`, `body` is the result's `error`."""

    line_id: UUID
    completed: bool
    http_status: int | None
    body: bytes
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """The line is tried again, not before `after_s`, as `request_id`."""

    line_id: UUID
    request_id: UUID
    sent: bool
    attempts: int
    after_s: float


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answered(msgspec.Struct):
    usage: _Usage | None = None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str = ""


class _Refused(msgspec.Struct):
    error: _Error


def judge(line: ClaimedLine, attempt: Attempt) -> Ended | Again:
    """The line's result, or when to try again."""
    if isinstance(attempt, Unreachable):
        # Nothing left this machine. What an earlier attempt did is as unknown as before.
        return Again(line.id, line.request_id, line.was_sent, line.attempts, AWAY_S)
    if isinstance(attempt, NoAnswer):
        if line.attempts + 1 >= ATTEMPTS_MAX:
            return failed(line.id, "no_answer", f"No answer came, {ATTEMPTS_MAX} times.")
        return Again(line.id, line.request_id, True, line.attempts + 1, backoff_s(line.attempts))
    if attempt.status == 429:
        return Again(line.id, uuid7(), False, line.attempts, _asked_s(attempt) or 1)
    if attempt.status == 503 and line.attempts + 1 < ATTEMPTS_MAX:
        after_s = max(_asked_s(attempt), backoff_s(line.attempts))
        return Again(line.id, uuid7(), False, line.attempts + 1, after_s)
    if attempt.body is None:
        message = f"The answer was larger than {ANSWER_BYTES_MAX:,} bytes."
        return failed(line.id, "answer_too_large", message)
    completed = 200 <= attempt.status < 300
    tokens_in, tokens_out = _tokens(attempt.body) if completed else (0, 0)
    return Ended(line.id, completed, attempt.status, one_line(attempt.body), tokens_in, tokens_out)


def failed(line_id: UUID, code: str, message: str) -> Ended:
    """A line that ended without an answer."""
    return Ended(line_id, False, None, error_body(code, message))


def error_body(code: str, message: str) -> bytes:
    """The `error` of a result line."""
    return msgspec.json.encode({"code": code, "message": message})


def ends_the_batch(attempt: Attempt) -> bytes | None:
    """The `error` for every line that is left, when the key may do nothing any more."""
    if not isinstance(attempt, Answer) or attempt.status not in (401, 403):
        return None
    try:
        error = msgspec.json.decode(attempt.body or b"", type=_Refused).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error()
    if attempt.status == 403 and error.code != "account_suspended":
        return None  # about this line's model, not about the key
    return error_body(error.code or "invalid_api_key", error.message or "The key was refused.")


def pause_after_s(attempt: Attempt) -> float:
    """How long to begin no other line of the batch: what the key or the gateway asks for."""
    if isinstance(attempt, Unreachable):
        return AWAY_S
    if isinstance(attempt, Answer) and attempt.status == 429:
        return min(_asked_s(attempt) or 1, PAUSE_S_MAX)
    return 0


def backoff_s(attempts: int) -> int:
    """2, 4, 8 ... seconds, at most `BACKOFF_S_MAX`."""
    return min(1 << min(attempts + 1, 10), BACKOFF_S_MAX)


def one_line(body: bytes) -> bytes:
    """The JSON without line breaks, digits and order untouched; other text as a JSON string."""
    try:
        return msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(body.decode(errors="replace"))


def _asked_s(answer: Answer) -> int:
    text = answer.retry_after or ""
    return min(int(text), BACKOFF_S_MAX) if text.isascii() and text.isdigit() else 0


def _tokens(body: bytes) -> tuple[int, int]:
    try:
        usage = msgspec.json.decode(body, type=_Answered).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, 0
    if usage is None:
        return 0, 0
    counts = (usage.prompt_tokens, usage.completion_tokens)
    return (min(max(0, counts[0]), TOKENS_MAX), min(max(0, counts[1]), TOKENS_MAX))
