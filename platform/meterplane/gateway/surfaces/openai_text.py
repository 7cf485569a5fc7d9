"""What chat and text completions have in common: sampling, limits, and the stream's options."""

from typing import Protocol

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway.prompts import Prompt
from meterplane.gateway.surface import Bounds, Offer, check_counted
from meterplane.gateway.surfaces.generate_keys import LEAST_TOKENS
from meterplane.kernel.errors import CallerError

CHOICES_MAX = 8
STOPS_MAX = 16
LOGPROBS_MAX = 20
WITH_LOGPROBS = ("vllm",)  # of the engines on Triton
PROMPT_TOKENS_SPARE = 8  # what an engine's tokenizer may put around a prompt


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False


class TextRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Fields of both surfaces. What is not listed is the model's allow-list's, or refused."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None  # the caller's own label; stays here
    metadata: dict[str, str] | None = None  # the request's tags; stays here, too

    @property
    def asked_tokens(self) -> int | None:
        """How many output tokens were asked for."""
        return self.max_tokens

    @property
    def choices(self) -> int:
        """How many answers were asked for."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """True when the stream's last chunk is to tell the counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def stops(self) -> list[str]:
        """Where to stop, as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class TextWork(Protocol):
    """A chat or a text completion, as adapters see it. `written_in` is the field of its prompts."""

    surface: Surface
    model: str
    stream: bool
    bytes_in: int
    tensor_bytes_in: int
    written_in: str
    extras: dict[str, msgspec.Raw]

    @property
    def request(self) -> TextRequest:
        """What was asked for."""
        ...

    def bounds(self, offer: Offer) -> Bounds:
        """As in `surface.Work`."""
        ...

    def prompts(self, offer: Offer) -> list[Prompt]:
        """What an engine is given, in the order of the answer's choices.

        Raises `CallerError` 400 for what cannot be written for a model, `WorldError` 503.
        """
        ...


def check_sampling(request: TextRequest) -> None:
    """Refuse values no engine can mean. Raises `CallerError` 400 naming the field."""
    asked = request.asked_tokens
    if asked is not None and asked < 1:
        field = "max_tokens" if request.max_tokens == asked else "max_completion_tokens"
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
    if len(request.stops()) > STOPS_MAX:
        raise CallerError("invalid_value", f"Send at most {STOPS_MAX} stops.", field="stop")
    for name in ("frequency_penalty", "presence_penalty"):
        value = getattr(request, name)
        if value is not None and not -2 <= value <= 2:
            raise CallerError("invalid_value", f"{name} must be -2 to 2.", field=name)


def output_tokens(work: TextWork, offer: Offer) -> int:
    """Output tokens per choice: what was asked, or our own bound, within the model's limit."""
    asked = work.request.asked_tokens
    if asked is None and not is_open(work):
        asked = offer.model.output_tokens_default
    return offer.output_tokens(asked)


def is_open(work: TextWork) -> bool:
    """Whether the length of an answer is ours to bound: the caller named neither most nor least."""
    return work.request.asked_tokens is None and LEAST_TOKENS.isdisjoint(work.extras)


def open_sequences(work: TextWork, prompts: int) -> int:
    """As in `surface.Bounds`."""
    return work.request.choices * prompts if is_open(work) else 0


def prompted_bounds(work: TextWork, offer: Offer) -> Bounds:
    """The most an engine can be made to use. Raises `CallerError` 400, `WorldError` 503.

    Byte-level BPE makes at most one token of each byte; where the tokenizer is here, it is exact.
    """
    request, model = work.request, offer.model
    check_counted(offer)
    prompts = work.prompts(offer)
    tokens_in_max = 0
    for prompt in prompts:
        check_context(prompt, work, offer)
        counted = len(prompt.text.encode()) if prompt.tokens is None else prompt.tokens
        counted += PROMPT_TOKENS_SPARE
        if model.context_tokens_max:
            counted = min(counted, model.context_tokens_max)
        tokens_in_max += counted
    tokens_out_max = output_tokens(work, offer) * request.choices * len(prompts)
    return Bounds(tokens_in_max, tokens_out_max, len(prompts), open_sequences(work, len(prompts)))


def output_tokens_after(prompt: Prompt, work: TextWork, offer: Offer) -> int:
    """As `output_tokens`, and what the context has left after a prompt that was counted."""
    tokens, context_tokens_max = output_tokens(work, offer), offer.model.context_tokens_max
    if prompt.tokens is None or not context_tokens_max:
        return tokens
    return min(tokens, context_tokens_max - prompt.tokens)


def check_context(prompt: Prompt, work: TextWork, offer: Offer) -> None:
    """Refuse what is known not to fit into its model's context, in OpenAI's words.

    An engine would refuse it, too, but each prompt by itself, while it streams the others.
    """
    tokens_max, field = offer.model.context_tokens_max, work.written_in
    if prompt.tokens is None or not tokens_max:
        return
    if prompt.tokens > tokens_max:
        raise CallerError(
            "context_length_exceeded",
            f"This model's maximum context length is {tokens_max} tokens. However, your {field}"
            f" resulted in {prompt.tokens} tokens. Please reduce the length of the {field}.",
            field=field,
        )
    # Nothing asked for: what is left of the context, and that is something.
    wanted = 1 if work.request.asked_tokens is None else output_tokens(work, offer)
    if prompt.tokens + wanted > tokens_max:
        raise CallerError(
            "context_length_exceeded",
            f"This model's maximum context length is {tokens_max} tokens. However, you requested"
            f" {prompt.tokens + wanted} tokens ({prompt.tokens} in the {field}, {wanted} in the"
            f" completion). Please reduce the length of the {field} or of the completion.",
            field=field,
        )


def refuse_logprobs(offer: Offer) -> None:
    """Where an engine does not report them."""
    if offer.model.adapter not in WITH_LOGPROBS:
        raise CallerError(
            "unsupported_parameter",
            f"{offer.model.name!r} does not report log probabilities; leave them out.",
            field="logprobs",
        )
