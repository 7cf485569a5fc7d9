"""`POST /v1/completions`: requests read, bounded and checked.

A request may hold several prompts; the answer has `n` choices for each, in order, and is one usage
event. Token arrays are for OpenAI-compatible servers: engines on Triton take text.
"""

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
from meterplane.gateway.surfaces.openai_tokens import (
    VALUES_MAX,
    TokenInput,
    check_ids_fit,
    pieces_of,
)
from meterplane.gateway.tokenizers import InPlace
from meterplane.kernel.errors import CallerError

PROMPTS_MAX = 128  # x 8 choices each = 1,024 sequences of one request
TOKEN_IDS_SPARE = 2  # an upstream may begin and end a prompt of ids


class CompletionRequest(TextRequest, frozen=True, kw_only=True, omit_defaults=True):
    """What is supported of OpenAI's request."""

    prompt: TokenInput
    echo: bool | None = None
    logprobs: int | None = None


class CompletionWork:
    """A text completion of one prompt or several."""

    __slots__ = (
        "_in_place",
        "_written",
        "bytes_in",
        "extras",
        "model",
        "pieces",
        "request",
        "stream",
    )
    surface: Surface = "openai.completions"
    tensor_bytes_in = 0
    written_in = "prompt"

    def __init__(
        self,
        request: CompletionRequest,
        pieces: list[str | list[int]],
        extras: dict[str, msgspec.Raw],
        bytes_in: int,
    ) -> None:
        self.request = request
        self.pieces = pieces
        self.extras = extras
        self.model = request.model
        self.stream = bool(request.stream)
        self.bytes_in = bytes_in
        self._in_place = InPlace()
        self._written: tuple[Offer, list[Prompt]] | None = None

    @property
    def metadata(self) -> dict[str, str] | None:
        """As in `surface.Work`."""
        return self.request.metadata

    def bounds(self, offer: Offer) -> Bounds:
        """As in `surface.Work`."""
        if self.extras:
            check_extras(self.extras, offer.serving)
        if offer.model.adapter == "openai":
            return self._passed_on_bounds(offer)
        self._check_for_engines(offer)
        return prompted_bounds(self, offer)

    def _passed_on_bounds(self, offer: Offer) -> Bounds:
        model, prompts = offer.model, len(self.pieces)
        check_ids_fit(self.pieces, model, "prompt")
        tokens_in_max = 0
        for piece in self.pieces:
            counted = len(piece.encode()) if isinstance(piece, str) else len(piece)
            counted += TOKEN_IDS_SPARE
            if model.context_tokens_max:
                counted = min(counted, model.context_tokens_max)
            tokens_in_max += counted
        tokens_out_max = output_tokens(self, offer) * self.request.choices * prompts
        return Bounds(tokens_in_max, tokens_out_max, prompts, open_sequences(self, prompts))

    def _check_for_engines(self, offer: Offer) -> None:
        model, request = offer.model.name, self.request
        if any(not isinstance(piece, str) for piece in self.pieces):
            raise CallerError(
                "unsupported_parameter",
                f"{model!r} takes its prompt as text and not as token ids; send a string.",
                field="prompt",
            )
        if "suffix" in self.extras:
            raise CallerError(
                "unsupported_parameter", f"{model!r} does not take a suffix.", field="suffix"
            )
        if request.logprobs is not None:
            refuse_logprobs(offer)
            if request.echo:
                raise CallerError(
                    "unsupported_parameter",
                    f"{model!r} does not report the prompt's log probabilities; leave out echo or"
                    " logprobs.",
                    field="logprobs",
                )

    def prompts(self, offer: Offer) -> list[Prompt]:
        """As in `TextWork`."""
        if self._written is None or self._written[0].serving is not offer.serving:
            written = [
                offer.prompts.text(offer.serving, piece, self._in_place)
                if isinstance(piece, str)
                else Prompt("", len(piece))
                for piece in self.pieces
            ]
            self._written = (offer, written)
        return self._written[1]


_reader = RequestReader(CompletionRequest, VALUES_MAX)


def parse(body: bytes) -> CompletionWork:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request, extras = _reader.read(body)
    if "best_of" in extras:
        raise CallerError(
            "unsupported_parameter",
            "best_of generates what is not returned; ask for n choices instead.",
            field="best_of",
        )
    pieces = pieces_of(request.prompt, "prompt", PROMPTS_MAX)
    check_sampling(request)
    if request.logprobs is not None and not 0 <= request.logprobs <= LOGPROBS_MAX:
        raise CallerError(
            "invalid_value", f"logprobs must be 0 to {LOGPROBS_MAX}.", field="logprobs"
        )
    return CompletionWork(request, pieces, extras, len(body))
