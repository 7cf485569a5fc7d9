"""`POST /v1/chat/completions`: requests read, bounded and checked."""

from typing import Any, Literal

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway.surface import Bounds, Offer, RequestReader, check_extras
from meterplane.gateway.surfaces.openai_text import TextRequest, check_sampling, output_tokens
from meterplane.kernel.errors import CallerError

MESSAGES_MAX = 1024
TEMPLATE_TOKENS_PER_MESSAGE = 4  # role, colon, newline, and one to spare
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

    __slots__ = ("bytes_in", "extras", "model", "request", "stream")
    surface: Surface = "openai.chat"
    tensor_bytes_in = 0

    def __init__(self, request: ChatRequest, extras: dict[str, msgspec.Raw], bytes_in: int) -> None:
        self.request = request
        self.extras = extras
        self.model = request.model
        self.stream = bool(request.stream)
        self.bytes_in = bytes_in

    def bounds(self, offer: Offer) -> Bounds:
        """Byte-level BPE makes at most one token of each byte."""
        request, model = self.request, offer.model
        check_extras(self.extras, offer.serving)
        tools = "tools" in offer.serving.parameters
        for message in request.messages:
            if not tools and (message.role == "tool" or message.tool_calls):
                raise CallerError(
                    "unknown_parameter",
                    f"{model.name!r} does not take tools.",
                    field="messages",
                )
        if model.adapter == "openai":
            tokens_in_max = self.bytes_in + TEMPLATE_TOKENS_MAX
        else:
            prompt = render_prompt(request.messages)
            tokens_in_max = len(prompt.encode()) + TEMPLATE_TOKENS_PER_MESSAGE * (
                len(request.messages) + 1
            )
        if model.context_tokens_max:
            tokens_in_max = min(tokens_in_max, model.context_tokens_max)
        return Bounds(tokens_in_max, output_tokens(request, model) * request.choices, 1)


_reader = RequestReader(ChatRequest)


def parse(body: bytes) -> ChatWork:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request, extras = _reader.read(body)
    if not request.messages or len(request.messages) > MESSAGES_MAX:
        raise CallerError("invalid_value", f"Send 1 to {MESSAGES_MAX} messages.", field="messages")
    check_sampling(request)
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= 20:
        raise CallerError("invalid_value", "top_logprobs must be 0 to 20.", field="top_logprobs")
    return ChatWork(request, extras, len(body))


def render_prompt(messages: list[Message]) -> str:
    """A plain role-per-line prompt, ending where the assistant speaks."""
    lines = [f"{message.role}: {message.text()}" for message in messages]
    return "\n".join([*lines, "assistant:"])
