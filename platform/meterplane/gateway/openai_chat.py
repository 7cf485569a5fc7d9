"""`POST /v1/chat/completions` over an engine with the vLLM tensor contract.

The upstream is always streamed, and a plain answer is collected from it: one way to measure. The
engine reports its own counts: the prompt's once, the output's per chunk and sequence, summed.
"""

from typing import Any, Literal

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.gateway.surface import Bounds, Work, convert, decode_json
from meterplane.kernel.errors import CallerError, WorldError

ADAPTERS = frozenset({"vllm"})
CHOICES_MAX = 8
MESSAGES_MAX = 1024
TEMPLATE_TOKENS_PER_MESSAGE = 4  # role, colon, newline, and one to spare


class TextPart(msgspec.Struct, frozen=True):
    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True):
    """What is supported of OpenAI's request. Anything else is refused by name, never dropped."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None  # the caller's own labels; nothing here reads them

    def asked_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def parse(body: bytes) -> Work:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request = convert(decode_json(body), ChatRequest)
    _check(request)
    prompt = render_prompt(request.messages)
    # Byte-level BPE makes at most one token of each byte.
    tokens_in_max = len(prompt.encode()) + TEMPLATE_TOKENS_PER_MESSAGE * (len(request.messages) + 1)

    def bounds(model: ModelPolicy) -> Bounds:
        return Bounds(
            tokens_in_max=tokens_in_max,
            tokens_out_max=output_tokens(request, model) * (request.n or 1),
            rows=1,
        )

    return Work(
        surface="openai.chat",
        model=request.model,
        adapters=ADAPTERS,
        stream=bool(request.stream),
        bytes_in=len(body),
        bounds=bounds,
        body=request,
    )


def _check(request: ChatRequest) -> None:
    if not request.messages or len(request.messages) > MESSAGES_MAX:
        raise CallerError("invalid_value", f"Send 1 to {MESSAGES_MAX} messages.", field="messages")
    asked = request.asked_tokens()
    if asked is not None and asked < 1:
        field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        raise CallerError("invalid_value", f"{field} must be at least 1.", field=field)
    if request.n is not None and not 1 <= request.n <= CHOICES_MAX:
        raise CallerError("invalid_value", f"n must be 1 to {CHOICES_MAX}.", field="n")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise CallerError("invalid_value", "temperature must be 0 to 2.", field="temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise CallerError("invalid_value", "top_p must be above 0, at most 1.", field="top_p")
    if request.stream_options is not None and not request.stream:
        raise CallerError(
            "invalid_value", "stream_options needs stream: true.", field="stream_options"
        )


def output_tokens(request: ChatRequest, model: ModelPolicy) -> int:
    """Output tokens per choice: what was asked, or the default, clamped to the model's limit."""
    asked = request.asked_tokens()
    return min(model.output_tokens_default if asked is None else asked, model.output_tokens_max)


def render_prompt(messages: list[Message]) -> str:
    """A plain role-per-line prompt, ending where the assistant speaks."""
    lines = [f"{message.role}: {message.text()}" for message in messages]
    return "\n".join([*lines, "assistant:"])


def upstream_body(work: Work, model: ModelPolicy) -> bytes:
    """The body of `generate_stream`, built from an allow-list."""
    request: ChatRequest = work.body
    sampling: dict[str, Any] = {"max_tokens": output_tokens(request, model), "n": request.n or 1}
    for name in ("temperature", "top_p", "seed"):
        value = getattr(request, name)
        if value is not None:
            sampling[name] = value
    if request.stop is not None:
        sampling["stop"] = [request.stop] if isinstance(request.stop, str) else request.stop
    return msgspec.json.encode(
        {
            "text_input": render_prompt(request.messages),
            "stream": True,
            "sampling_parameters": msgspec.json.encode(sampling).decode(),
            "exclude_input_in_output": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
            "return_finish_reason": True,
        }
    )


class EngineChunk(msgspec.Struct, frozen=True):
    """One response of the engine, per sequence where it is a list."""

    texts: list[str]
    tokens_in: int
    tokens_out: int
    finish_reasons: list[str | None]


def read_chunk(event: dict[str, Any]) -> EngineChunk:
    """One event of `generate_stream`. Raises `WorldError` 502 when it cannot be measured."""
    try:
        tokens_in = int(event["num_input_tokens"])
        tokens_out = sum(int(count) for count in _list(event["num_output_tokens"]))
        texts = [str(text) for text in _list(event["text_output"])]
    except (KeyError, TypeError, ValueError):
        raise WorldError(
            "unmeasurable_answer",
            "The engine did not report its token counts, so this answer cannot be served.",
            status=502,
        ) from None
    reasons = [
        None if reason in (None, "None", "") else str(reason)
        for reason in _list(event.get("finish_reason", "None"))
    ]
    return EngineChunk(texts, tokens_in, tokens_out, reasons)


def _list(value: Any) -> list[Any]:
    """Triton writes a tensor of one element as a scalar."""
    return value if isinstance(value, list) else [value]


class ChatShape:
    """Engine chunks in OpenAI's words, for one request."""

    def __init__(self, request_id: str, created_s: int, request: ChatRequest) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created_s, "model": request.model}
        self._choices = request.n or 1
        self._include_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._texts = [""] * self._choices
        self._reasons: list[str | None] = [None] * self._choices

    def opening(self) -> bytes:
        """The first event: each choice's role."""
        return b"".join(
            self._event(index, {"role": "assistant", "content": ""}, None)
            for index in range(self._choices)
        )

    def chunk(self, chunk: EngineChunk) -> bytes:
        """The events of one engine chunk; also remembered for `answer`."""
        events = b""
        for index, text in enumerate(chunk.texts[: self._choices]):
            reason = chunk.finish_reasons[index] if index < len(chunk.finish_reasons) else None
            self._texts[index] += text
            if text:
                events += self._event(index, {"content": text}, None)
            if reason is not None and self._reasons[index] is None:
                self._reasons[index] = reason
                events += self._event(index, {}, reason)
        return events

    def closing(self, tokens_in: int, tokens_out: int) -> bytes:
        """Whatever finish reason is still owed, the usage if it was asked for, and the end."""
        events = b""
        for index, reason in enumerate(self._reasons):
            if reason is None:
                events += self._event(index, {}, "stop")
        if self._include_usage:
            events += self._line({"choices": [], "usage": _usage(tokens_in, tokens_out)})
        return events + b"data: [DONE]\n\n"

    def answer(self, tokens_in: int, tokens_out: int) -> bytes:
        """The plain answer collected from all chunks."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": self._reasons[index] or "stop",
            }
            for index, text in enumerate(self._texts)
        ]
        body = self._head | {"object": "chat.completion", "choices": choices}
        return msgspec.json.encode(body | {"usage": _usage(tokens_in, tokens_out)})

    def _event(self, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._line({"choices": [choice]} | ({"usage": None} if self._include_usage else {}))

    def _line(self, body: dict[str, Any]) -> bytes:
        full = self._head | {"object": "chat.completion.chunk"} | body
        return b"data: " + msgspec.json.encode(full) + b"\n\n"


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
