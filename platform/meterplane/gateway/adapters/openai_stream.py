"""An OpenAI-compatible upstream's event stream: counted, and made ours. Bytes in, bytes out.

The rule of the hot path: a block of whole events that holds nothing special (a usage, an error, the
end mark) is passed on as it came, looked at by three scans in C. Only special events are parsed.

What we injected (`include_usage`, `continuous_usage_stats`) is taken out again: the `usage` of
every chunk and, for a caller who did not ask, the chunk that has nothing else. The replacement
works on raw bytes and cannot touch text: inside a JSON string every quote is escaped.

Any split of the same bytes gives the same output and the same counts. That is why `feed` does not
raise: what came before an error in the same block goes to the caller first.
"""

import re
from typing import Annotated, Any

import msgspec

from meterplane.gateway.adapters.engine import COUNT_MAX
from meterplane.kernel.errors import WorldError
from meterplane.triton.failures import TritonBroken

EVENT_BYTES_MAX = 1024 * 1024

_SPECIAL = re.compile(rb'\[DONE\]|"usage"\s*:\s*\{|"error"\s*:\s*[^\sn]')
# A member and the comma that goes with it, wherever in the object it stands.
_USAGE_NULL = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,\s*')
# One token at least in each. A role, an empty text or a finish reason has none.
_OUTPUT = re.compile(rb'"(?:content|text|arguments|reasoning|reasoning_content)"\s*:\s*"(?!")')


Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
NO_ERROR = msgspec.Raw(b"null")  # what is raw cannot be optional: "null" stands for both


class Usage(msgspec.Struct, frozen=True):
    """Counts as OpenAI reports them."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    error: msgspec.Raw = NO_ERROR


_decoder = msgspec.json.Decoder(_Chunk)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL = msgspec.Raw(b"null")


class OpenAIStream:
    """One stream. `tokens_in` and `tokens_out` are the engine's once `reported`: both of them, or
    a usage is none.

    Until then `chunks_out` counts the chunks that carried output: no engine puts less than one
    token into a chunk, so it is never more than what was generated. Running totals (`continuous`)
    are some engines' per choice, so they count only where they say more than the chunks do.

    `failure` is what ended the stream: nothing after it is passed on.
    """

    __slots__ = (
        "_after_return",
        "_continuous",
        "_final",
        "_rest",
        "_strip",
        "_told_out",
        "chunks_out",
        "done",
        "failure",
        "reported",
        "tokens_in",
    )

    def __init__(self, *, strip_usage: bool, continuous: bool = False) -> None:
        self._strip = strip_usage
        self._continuous = continuous
        self._rest = b""
        self._after_return = False  # the last line ended in CR: a LF that follows belongs to it
        self._final = False  # the totals have come, and not only running ones
        self._told_out = 0
        self.tokens_in = 0
        self.chunks_out = 0
        self.reported = False
        self.done = False
        self.failure: WorldError | None = None

    @property
    def tokens_out(self) -> int:
        """Output tokens the engine told of so far."""
        return self._told_out if self._final else max(self._told_out, self.chunks_out)

    def feed(self, block: bytes) -> bytes:
        """What of a block may go to the caller: whole events only, without the end mark."""
        if self._after_return or b"\r" in block:
            block = self._with_line_feeds(block)
        data = self._rest + block if self._rest else block
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            self._keep(data)
            return b""
        whole = data if cut == len(data) else data[:cut]
        over = self.done or self.failure is not None
        self._keep(data[cut:])
        if over:
            return b""
        if _SPECIAL.search(whole):
            return self._special(whole)
        return self._plain(whole)

    def _with_line_feeds(self, block: bytes) -> bytes:
        if self._after_return and block:
            self._after_return = False
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            self._after_return = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return block

    def _keep(self, rest: bytes) -> None:
        self._rest = rest
        if len(rest) > EVENT_BYTES_MAX and self.failure is None:
            self.failure = TritonBroken(f"an event is larger than {EVENT_BYTES_MAX} bytes")

    def _plain(self, events: bytes) -> bytes:
        self.chunks_out += len(_OUTPUT.findall(events))
        if self._strip and b'"usage"' in events:
            return _USAGE_NULL.sub(b"", events)
        return events

    def _special(self, events: bytes) -> bytes:
        out = []
        for event in events.split(b"\n\n"):
            if not event:
                continue
            passed = self._one(event) if _SPECIAL.search(event) else self._plain(event)
            if self.done or self.failure is not None:
                break
            if passed:
                out.append(passed + b"\n\n")
        return b"".join(out)

    def _one(self, event: bytes) -> bytes:
        """A special event as the caller may have it; empty when it was only for us."""
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line[:5] == b"data:")
        if data == b"[DONE]":
            self.done = True
            return b""
        if not data:
            return event
        try:
            chunk = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            self.failure = TritonBroken(f"an event is not a chunk ({problem})")
            return b""
        if bytes(chunk.error) != b"null":
            self.failure = failure_of(chunk.error)
            return b""
        if chunk.usage is None:
            return self._plain(event)
        self.chunks_out += len(_OUTPUT.findall(event))
        return self._with_usage(event, data, chunk, chunk.usage)

    def _with_usage(self, event: bytes, data: bytes, chunk: _Chunk, usage: Usage) -> bytes:
        running = self._continuous and bool(chunk.choices)
        if usage.prompt_tokens is not None and usage.completion_tokens is not None:
            self.reported = True
            self._final = self._final or not running
            self.tokens_in = max(self.tokens_in, usage.prompt_tokens)
            self._told_out = max(self._told_out, usage.completion_tokens)
        if self._strip:
            return b"data: " + _without_usage(data) if chunk.choices else b""
        return b"data: " + _usage_null(data) if running else event

    def finish(self) -> None:
        """The body has ended. Sets `failure` when the stream had not."""
        self.done = self.done or self._rest.strip() == b"data: [DONE]"
        if not (self.done or self.failure is not None or (self._final and not self._rest.strip())):
            self.failure = TritonBroken("its stream ended before its end mark")


def _without_usage(data: bytes) -> bytes:
    fields = _fields.decode(data)
    fields.pop("usage", None)
    return msgspec.json.encode(fields)


def _usage_null(data: bytes) -> bytes:
    return msgspec.json.encode(_fields.decode(data) | {"usage": _NULL})


def failure_of(error: msgspec.Raw) -> WorldError:
    """What an upstream's `error` member says, as our failure."""
    try:
        document: Any = msgspec.json.decode(error)
    except msgspec.DecodeError:
        document = None
    text = document.get("message") if isinstance(document, dict) else document
    message = str(text)[:2000] if text else "the inference server failed"
    return WorldError("upstream_failed", message, status=502, retry_after_s=None)
