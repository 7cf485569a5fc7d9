"""What a text engine on Triton is, whatever its tensors: asked once, answering in pieces, counted.

Guarantees for every engine: a piece that does not say what it must is a `WorldError` 502 and never
free service; a prompt that comes back with the output is neither shown nor counted as output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from meterplane.contracts.usage import Provenance
from meterplane.gateway import errors
from meterplane.gateway.surfaces.openai_text import TextRequest

# Far above any context, and 2^31 of them added up still fit the journal's and the table's 64 bits.
COUNT_MAX = 2**31 - 1
PENALTIES = ("frequency_penalty", "presence_penalty")


class TokenLogprob(msgspec.Struct, frozen=True):
    """One generated token and the likeliest at its place, with their log probabilities."""

    token: str
    logprob: float
    top: list[tuple[str, float]]


class Piece(msgspec.Struct, frozen=True):
    """What one response of an engine adds.

    `texts` and `finish_reasons` are per sequence; `index` is the first one's among those asked for.
    """

    texts: list[str]
    finish_reasons: list[str | None]
    index: int = 0
    logprobs: list[list[TokenLogprob]] | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to an engine.

    `tokens_out_max` bounds each of its `choices`. `parameters` are the request's fields that the
    model's allow-list lets through. `logprobs` is how many alternatives are wanted; None: no log
    probabilities. `count` is the model's tokenizer over output, where there is one. `echoed`: the
    engine was not told to leave the prompt out of its output.
    """

    prompt: str
    tokens_in: int | None
    choices: int
    tokens_out_max: int
    request: TextRequest
    parameters: dict[str, Any]
    logprobs: int | None = None
    seed: int | None = None
    count: Callable[[str], int] | None = None
    echoed: bool = False


class Reader(Protocol):
    """One answer. `tokens_in` and `tokens_out` are what is known of it so far, over all choices."""

    tokens_in: int
    tokens_out: int

    def read(self, event: dict[str, Any]) -> Piece:
        """One event. Raises `WorldError` 502 when it cannot be measured."""
        ...

    def finish(self) -> Piece:
        """What was held back, once the answer is whole. Counts are final afterwards."""
        ...


class Engine(Protocol):
    """One kind of engine. Pure: values in, bytes out, and back."""

    provenance: Provenance
    choices_max: int  # of one request to it; more choices are more requests

    def body(self, ask: Ask) -> bytes:
        """The body of `generate_stream`, built from an allow-list."""
        ...

    def reader(self, ask: Ask) -> Reader:
        """For the answer to a request."""
        ...


def sampling_of(request: TextRequest) -> dict[str, Any]:
    """How to sample, in the names that all engines share.

    A penalty of 0 is none. Clients write it without being asked, and an engine that has no
    penalties refuses the name.
    """
    penalties = {name: getattr(request, name) or None for name in PENALTIES}
    wanted = {"temperature": request.temperature, "top_p": request.top_p} | penalties
    return {name: value for name, value in wanted.items() if value is not None}


def as_list(value: Any) -> list[Any]:
    """Triton writes a tensor of one element as a scalar."""
    return value if isinstance(value, list) else [value]


def texts_of(event: dict[str, Any], choices: int) -> list[str]:
    """The `text_output` of an event. Raises `WorldError` 502."""
    texts = as_list(event.get("text_output"))
    if not 0 < len(texts) <= choices or not all(isinstance(text, str) for text in texts):
        raise errors.unmeasurable()
    return texts


def count_of(value: Any) -> int:
    """A count an engine reports. Raises `WorldError` 502."""
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise errors.unmeasurable()
    return value


def reasons_of(event: dict[str, Any], sequences: int) -> list[str | None]:
    """The finish reasons of an event in OpenAI's words; engines write "None" while they go on."""
    given = as_list(event.get("finish_reason"))
    reasons = [_REASONS.get(str(reason), "stop") for reason in given[:sequences]]
    return reasons + [None] * (sequences - len(reasons))


_REASONS: dict[str, str | None] = {
    "None": None,
    "": None,
    "length": "length",
    "FinishReason.LENGTH": "length",
    "content_filter": "content_filter",
}
