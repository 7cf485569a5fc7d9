"""An OpenAI-compatible upstream's event stream: counted, and made ours. Bytes in, bytes out.

The rule of the hot path: a block of whole events that holds nothing special (a usage, an error, the
end mark) is passed on as it came, looked at by three scans in C. Only special events are parsed.

What we injected (`include_usage`) is taken out again for a caller who did not ask: the `usage` of
every chunk and the chunk that has nothing else. The replacement works on raw bytes and cannot touch
text: inside a JSON string every quote is escaped.
"""

import re
from typing import Any

import msgspec

from meterplane.kernel.errors import WorldError
from meterplane.triton.failures import TritonBroken

EVENT_BYTES_MAX = 1024 * 1024

_SPECIAL = re.compile(rb'\[DONE\]|"usage"\s*:\s*\{|"error"\s*:\s*[^\sn]')
_USAGE_NULL = re.compile(rb',\s*"usage"\s*:\s*null')
# What carries tokens: one at least in each. A role, an empty text or a finish reason has none.
_OUTPUT = re.compile(rb'"(?:content|text|arguments|reasoning|reasoning_content)"\s*:\s*"(?!")')


class Usage(msgspec.Struct, frozen=True):
    """Counts as OpenAI reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[msgspec.Raw] = []
    usage: Usage | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(_Chunk)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OpenAIStream:
    """One stream. `tokens_in` and `tokens_out` are the engine's once `reported`.

    Until then `chunks_out` counts the chunks that carried output: no engine puts less than one
    token into a chunk, so it is never more than what was generated.
    """

    __slots__ = ("_rest", "_strip", "chunks_out", "done", "reported", "tokens_in", "tokens_out")

    def __init__(self, *, strip_usage: bool) -> None:
        self._strip = strip_usage
        self._rest = b""
        self.tokens_in = 0
        self.tokens_out = 0
        self.chunks_out = 0
        self.reported = False
        self.done = False

    def feed(self, block: bytes) -> bytes:
        """What of a block may go to the caller: whole events only, without the end mark.

        Raises `TritonBroken` for what is no event, `WorldError` for an error the engine tells.
        """
        data = self._rest + block if self._rest else block
        if b"\r" in data:
            data = self._without_returns(data)
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            self._keep(data)
            return b""
        whole = data if cut == len(data) else data[:cut]
        self._keep(data[cut:])
        if self.done:
            return b""
        if _SPECIAL.search(whole):
            return self._special(whole)
        return self._plain(whole)

    def _without_returns(self, data: bytes) -> bytes:
        if data.endswith(b"\r"):
            # Its line feed has not come yet: wait for it, behind what can be read.
            self._rest, data = b"\r", data[:-1]
        else:
            self._rest = b""
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, rest: bytes) -> None:
        self._rest = rest + b"\r" if self._rest == b"\r" else rest
        if len(self._rest) > EVENT_BYTES_MAX:
            raise TritonBroken(f"an event is larger than {EVENT_BYTES_MAX} bytes")

    def _plain(self, events: bytes) -> bytes:
        self.chunks_out += len(_OUTPUT.findall(events))
        if self._strip and b'"usage"' in events:
            return _USAGE_NULL.sub(b"", events)
        return events

    def _special(self, events: bytes) -> bytes:
        out = []
        for event in events.split(b"\n\n"):
            if not event or self.done:
                continue
            passed = self._one(event) if _SPECIAL.search(event) else self._plain(event)
            if passed:
                out.append(passed + b"\n\n")
        return b"".join(out)

    def _one(self, event: bytes) -> bytes:
        """A special event as the caller may have it; empty when it was only for us."""
        data = b"\n".join(line[5:].lstrip() for line in event.split(b"\n") if line[:5] == b"data:")
        if data == b"[DONE]":
            self.done = True
            return b""
        if not data:
            return event
        try:
            chunk = _decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError) as problem:
            raise TritonBroken(f"an event is not a chunk ({problem})") from None
        if chunk.error is not None and bytes(chunk.error) != b"null":
            raise failure_of(chunk.error)
        self.chunks_out += len(_OUTPUT.findall(event))
        if chunk.usage is not None:
            self.reported = True
            self.tokens_in = max(self.tokens_in, chunk.usage.prompt_tokens)
            self.tokens_out = max(self.tokens_out, chunk.usage.completion_tokens)
            if self._strip:
                return b"" if not chunk.choices else b"data: " + _without_usage(data)
        return event

    def finish(self) -> None:
        """The body has ended. Raises `TritonBroken` when the stream had not."""
        if not self.done and not (self.reported and not self._rest.strip()):
            raise TritonBroken("its stream ended before its end mark")


def _without_usage(data: bytes) -> bytes:
    fields = _fields.decode(data)
    fields.pop("usage", None)
    return msgspec.json.encode(fields)


def failure_of(error: msgspec.Raw) -> WorldError:
    """What an upstream's `error` member says, as our failure."""
    try:
        document: Any = msgspec.json.decode(error)
    except msgspec.DecodeError:
        document = None
    text = document.get("message") if isinstance(document, dict) else document
    message = str(text)[:2000] if text else "the inference server failed"
    return WorldError("upstream_failed", message, status=502, retry_after_s=None)
