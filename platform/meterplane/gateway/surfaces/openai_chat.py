"""`POST /v1/chat/completions`: requests read, bounded and checked."""

from typing import Any, Literal

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway.prompts import Prompt
from meterplane.gateway.surface import Bounds, Offer, RequestReader, check_extras
from meterplane.gateway.surfaces.openai_text import (
    LOGPROBS_MAX,
    TextRequest,
    check_sampling,
    open_sequences,
    output_tokens,
    prompted_bounds,
    refuse_logprobs,
)
from meterplane.gateway.tokenizers import InPlace
from meterplane.kernel.errors import CallerError

MESSAGES_MAX = 1024
CONTENT_PARTS_MAX = 4096  # of all messages: four each in the longest chat
TOOL_CALLS_MAX = 1024  # of all messages: one each in the longest chat
# Commas and brackets: four for each of 1,024 messages, three for 4,096 parts, six for 1,024 calls
# make 22,500; the rest is for the schemas of tools. Read within 10 ms.
VALUES_MAX = 32 * 1024
TEMPLATE_TOKENS_MAX = 256  # what an upstream's own chat template may add: a default system prompt


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The only kind of part: an address of an image would be fetched by the server."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`tool_calls` and `tool_call_id` are for models whose allow-list has `tools`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    def text(self) -> str:
        """What is said, parts joined."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    def spoken(self) -> dict[str, Any]:
        """As chat templates read a message."""
        message: dict[str, Any] = {"role": self.role, "content": self.text()}
        if self.name is not None:
            message["name"] = self.name
        return message


class ChatRequest(TextRequest, frozen=True, kw_only=True, omit_defaults=True):
    """What is supported of OpenAI's request."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def asked_tokens(self) -> int | None:
        """The newer name wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class ChatWork:
    """A chat completion."""

    __slots__ = ("_in_place", "_written", "bytes_in", "extras", "model", "request", "stream")
    surface: Surface = "openai.chat"
    tensor_bytes_in = 0
    written_in = "messages"

    def __init__(self, request: ChatRequest, extras: dict[str, msgspec.Raw], bytes_in: int) -> None:
        self.request = request
        self.extras = extras
        self.model = request.model
        self.stream = bool(request.stream)
        self.bytes_in = bytes_in
        self._in_place = InPlace()
        self._written: tuple[Offer, Prompt] | None = None

    @property
    def metadata(self) -> dict[str, str] | None:
        """As in `surface.Work`."""
        return self.request.metadata

    def bounds(self, offer: Offer) -> Bounds:
        """As in `surface.Work`."""
        request, model = self.request, offer.model
        if self.extras:
            check_extras(self.extras, offer.serving)
        takes_tools = model.adapter == "openai" and "tools" in offer.serving.parameters
        if not takes_tools:
            _refuse_tools(self, model.name)
        if model.adapter == "openai":
            tokens_in_max = self.bytes_in + TEMPLATE_TOKENS_MAX
            if model.context_tokens_max:
                tokens_in_max = min(tokens_in_max, model.context_tokens_max)
            tokens_out_max = output_tokens(self, offer) * request.choices
            return Bounds(tokens_in_max, tokens_out_max, 1, open_sequences(self, 1))
        if request.logprobs:
            refuse_logprobs(offer)
        return prompted_bounds(self, offer)

    def prompts(self, offer: Offer) -> list[Prompt]:
        """As in `TextWork`: one. Written once for a model, however often it is asked for."""
        if self._written is None or self._written[0].serving is not offer.serving:
            messages = [message.spoken() for message in self.request.messages]
            written = offer.prompts.chat(offer.serving, messages, self._in_place)
            self._written = (offer, written)
        return [self._written[1]]


def _refuse_tools(work: ChatWork, model: str) -> None:
    for message in work.request.messages:
        if message.role == "tool" or message.tool_calls:
            raise CallerError(
                "unknown_parameter", f"{model!r} does not take tools.", field="messages"
            )
    if "tools" in work.extras:
        raise CallerError("unknown_parameter", f"{model!r} does not take tools.", field="tools")


_reader = RequestReader(ChatRequest, VALUES_MAX)


def parse(body: bytes) -> ChatWork:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request, extras = _reader.read(body)
    if not request.messages or len(request.messages) > MESSAGES_MAX:
        raise CallerError("invalid_value", f"Send 1 to {MESSAGES_MAX} messages.", field="messages")
    _check_counts(request.messages)
    check_sampling(request)
    if request.top_logprobs is not None:
        _check_top_logprobs(request)
    return ChatWork(request, extras, len(body))


def _check_counts(messages: list[Message]) -> None:
    parts = calls = 0
    for number, message in enumerate(messages):
        parts += len(message.content) if isinstance(message.content, list) else 0
        calls += len(message.tool_calls or ())
        if parts > CONTENT_PARTS_MAX:
            what, field = f"{CONTENT_PARTS_MAX:,} parts of content", "content"
        elif calls > TOOL_CALLS_MAX:
            what, field = f"{TOOL_CALLS_MAX:,} tool calls", "tool_calls"
        else:
            continue
        raise CallerError(
            "invalid_value",
            f"All messages together may hold at most {what}; send less.",
            field=f"messages[{number}].{field}",
        )


def _check_top_logprobs(request: ChatRequest) -> None:
    if not 0 <= (request.top_logprobs or 0) <= LOGPROBS_MAX:
        raise CallerError(
            "invalid_value", f"top_logprobs must be 0 to {LOGPROBS_MAX}.", field="top_logprobs"
        )
    if not request.logprobs:
        raise CallerError(
            "invalid_value", "top_logprobs needs logprobs: true.", field="top_logprobs"
        )
