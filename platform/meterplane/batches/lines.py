"""A batch's input file, line by line: what is in it, or what is wrong with it. A pure reader.

One line is one JSON object `{custom_id, method, url, body}`; empty lines are passed over. Memory
holds one line at a time, the ids seen, and at most 100 complaints.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from meterplane.batches.limits import (
    CUSTOM_ID_CHARS_MAX,
    EMBEDDING_INPUTS_MAX,
    ERRORS_MAX,
    LINE_BYTES_MAX,
    LINES_MAX,
    MODEL_CHARS_MAX,
)
from meterplane.batches.text import is_storable
from meterplane.contracts.tag_text import is_name, is_value

EMBEDDINGS = "/v1/embeddings"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what some editors put in front of a file


@dataclass(frozen=True, slots=True)
class InputLine:
    """A good line: its number from 1 and where it is in the file."""

    line_no: int
    custom_id: str
    start_byte: int
    size_bytes: int


@dataclass(slots=True)
class Input:
    """A whole file. It can run if `errors` is empty."""

    lines: list[InputLine] = field(default_factory=list)
    model: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")


class _Wrong(Exception):
    """What is wrong with one line."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


_line_decoder = msgspec.json.Decoder(_Line)
_body_decoder = msgspec.json.Decoder(_Body)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def body_of(line: bytes) -> bytes:
    """The `body` of a line that was found good, as it stands there."""
    return bytes(_line_decoder.decode(line.removeprefix(_BYTE_ORDER_MARK)).body)


def inheriting(body: bytes, metadata: dict[str, str] | None) -> bytes:
    """A line's body with its batch's metadata, as far as it names none of that name itself.

    OpenAI lets a batch's values be longer than a tag of usage may be: those stay on the batch, for
    nobody could have meant them for a name on a bill, and a line must not fail for them.
    """
    inherited = {
        name: value for name, value in (metadata or {}).items() if is_name(name) and is_value(value)
    }
    if not inherited:
        return body
    fields = _fields_decoder.decode(body)
    try:
        own = _fields_decoder.decode(fields.get("metadata", b"{}"))
    except msgspec.ValidationError:  # null, or what the gateway will refuse
        if bytes(fields["metadata"]) != b"null":
            return body
        own = {}
    return msgspec.json.encode(fields | {"metadata": inherited | own})


def read(content: IO[bytes], endpoint: str) -> Input:
    """Every line of a file, or at most 100 errors of it."""
    found = Input()
    seen: set[str] = set()
    inputs = 0
    for line_no, start_byte, line in _split(content):
        if len(found.errors) >= ERRORS_MAX:
            break
        if len(line) <= LINE_BYTES_MAX and not line.strip():
            continue
        try:
            if len(found.lines) >= LINES_MAX:
                raise _Wrong("too_many_tasks", f"A batch has at most {LINES_MAX:,} requests.")
            parsed, body = _parse(line, endpoint)
            if parsed.custom_id in seen:
                shown = parsed.custom_id[:80]
                raise _Wrong(
                    "duplicate_custom_id", f"custom_id {shown!r} is used twice.", "custom_id"
                )
            if found.model and body.model != found.model:
                raise _Wrong(
                    "mismatched_model",
                    f"All lines must name one model; the first names {found.model!r}.",
                    "body.model",
                )
            inputs += _count_inputs(body) if endpoint == EMBEDDINGS else 0
            if inputs > EMBEDDING_INPUTS_MAX:
                raise _Wrong(
                    "too_many_inputs",
                    f"A batch of embeddings has at most {EMBEDDING_INPUTS_MAX:,} inputs.",
                    "body.input",
                )
        except _Wrong as wrong:
            found.errors.append(_error(wrong, line_no))
            if wrong.code in ("too_many_tasks", "too_many_inputs"):
                break  # every line from here on would say the same
            continue
        found.model = body.model
        seen.add(parsed.custom_id)
        found.lines.append(InputLine(line_no, parsed.custom_id, start_byte, len(line)))
    if not found.lines and not found.errors:
        found.errors.append(_error(_Wrong("empty_file", "The file has no requests."), None))
    return found


def _split(content: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Number, start and bytes of each line; of one that is too long, one byte more than allowed."""
    line_no = start_byte = 0
    while line := content.readline(LINE_BYTES_MAX + 1):
        line_no += 1
        yield line_no, start_byte, line
        start_byte += len(line)
        while len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):  # the rest of a long one
            line = content.readline(LINE_BYTES_MAX + 1)
            start_byte += len(line)


def _parse(line: bytes, endpoint: str) -> tuple[_Line, _Body]:
    if len(line) > LINE_BYTES_MAX:
        raise _Wrong("line_too_long", f"A line has at most {LINE_BYTES_MAX:,} bytes.")
    try:
        parsed = _line_decoder.decode(line.removeprefix(_BYTE_ORDER_MARK))
    except msgspec.ValidationError as problem:
        raise _Wrong("invalid_request", f"{problem}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _Wrong("invalid_json_line", f"This line is not a JSON object: {problem}.") from None
    if not 0 < len(parsed.custom_id) <= CUSTOM_ID_CHARS_MAX or not is_storable(parsed.custom_id):
        raise _Wrong(
            "invalid_custom_id",
            f"custom_id must have 1 to {CUSTOM_ID_CHARS_MAX} characters of Unicode, none of them "
            "NUL.",
            "custom_id",
        )
    if parsed.method != "POST":
        raise _Wrong("invalid_method", "method must be 'POST'.", "method")
    if parsed.url != endpoint:
        raise _Wrong("invalid_url", f"url must be the batch's endpoint, {endpoint!r}.", "url")
    return parsed, _parse_body(bytes(parsed.body))


def _parse_body(raw: bytes) -> _Body:
    try:
        body = _body_decoder.decode(raw)
    except msgspec.ValidationError as problem:
        raise _Wrong("invalid_request", f"body: {problem}.", "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _Wrong("invalid_json_line", f"body is not JSON: {problem}.", "body") from None
    if not 0 < len(body.model) <= MODEL_CHARS_MAX or not is_storable(body.model):
        raise _Wrong("invalid_request", "body.model must name a model.", "body.model")
    if body.stream:
        raise _Wrong("stream_not_offered", "A batch does not stream.", "body.stream")
    return body


def _count_inputs(body: _Body) -> int:
    """Texts of an embedding request: an array has one each, unless it is one text's tokens."""
    if not bytes(body.input).lstrip().startswith(b"["):
        return 1
    items = _list_decoder.decode(body.input)
    tokens = bool(items) and bytes(items[0])[:1] in b"-0123456789"
    return 1 if tokens else len(items)


def _error(wrong: _Wrong, line_no: int | None) -> dict[str, Any]:
    message = wrong.message if is_storable(wrong.message) else "This line has unusable characters."
    return {"code": wrong.code, "line": line_no, "message": message[:500], "param": wrong.param}
