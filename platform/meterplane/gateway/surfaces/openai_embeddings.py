"""`POST /v1/embeddings` over a model that takes TEXT and answers EMBEDDING and TOKENS."""

import base64
import math
from array import array
from typing import Any, Literal

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import count_of
from meterplane.gateway.prompts import Prompt
from meterplane.gateway.surface import Bounds, Offer, RequestReader, check_extras
from meterplane.gateway.surfaces.openai_tokens import (
    VALUES_MAX,
    TokenInput,
    check_ids_fit,
    pieces_of,
)
from meterplane.gateway.tokenizers import InPlace
from meterplane.kernel.errors import CallerError

INPUTS_MAX = 2048
SPECIAL_TOKENS = 2  # a start and an end per text


class EmbeddingsRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is supported of OpenAI's request. Anything else is refused by name, never dropped."""

    model: str
    input: TokenInput
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None  # the request's tags


class EmbeddingsWork:
    """Texts to embed, or their tokens."""

    __slots__ = ("_in_place", "_read", "bytes_in", "extras", "model", "pieces", "request")
    surface: Surface = "openai.embeddings"
    stream = False
    tensor_bytes_in = 0

    def __init__(
        self,
        request: EmbeddingsRequest,
        pieces: list[str | list[int]],
        extras: dict[str, msgspec.Raw],
        bytes_in: int,
    ) -> None:
        self.request = request
        self.pieces = pieces
        self.extras = extras
        self.model = request.model
        self.bytes_in = bytes_in
        self._in_place = InPlace()
        self._read: tuple[Offer, list[str]] | None = None

    @property
    def metadata(self) -> dict[str, str] | None:
        """As in `surface.Work`."""
        return self.request.metadata

    def bounds(self, offer: Offer) -> Bounds:
        """WordPiece and byte-level BPE make at most one token of each byte."""
        if self.extras:
            check_extras(self.extras, offer.serving)
        check_ids_fit(self.pieces, offer.model, "input")
        pieces = self.pieces if offer.model.adapter == "openai" else self.texts(offer)
        tokens_in_max = 0
        for piece in pieces:
            counted = len(piece.encode()) if isinstance(piece, str) else len(piece)
            counted += SPECIAL_TOKENS
            if offer.model.context_tokens_max:
                counted = min(counted, offer.model.context_tokens_max)
            tokens_in_max += counted
        return Bounds(tokens_in_max, 0, len(pieces))

    def texts(self, offer: Offer) -> list[str]:
        """What a model on Triton reads. Raises `CallerError` 400 for tokens nobody can decode.

        Made once for a model, however often it is asked for.
        """
        if self._read is None or self._read[0].serving is not offer.serving:
            self._read = (offer, self._texts(offer))
        return self._read[1]

    def _texts(self, offer: Offer) -> list[str]:
        tokenizer = offer.prompts.tokenizer(offer.serving)
        texts = []
        for piece in self.pieces:
            if isinstance(piece, str):
                texts.append(piece)
            elif tokenizer is None:
                raise CallerError(
                    "unsupported_parameter",
                    f"{offer.model.name!r} takes texts and not token ids; send strings.",
                    field="input",
                )
            elif (stranger := tokenizer.unknown(piece)) is not None:
                raise CallerError(
                    "invalid_value",
                    f"{offer.model.name!r} has no token id {stranger}; send ids of its own"
                    " tokenizer, or strings.",
                    field="input",
                )
            else:
                texts.append(tokenizer.decode(piece))
        return texts

    def prompts(self, offer: Offer) -> list[Prompt]:
        """The inputs, counted where the model's tokenizer is here."""
        return [
            offer.prompts.text(offer.serving, piece, self._in_place)
            if isinstance(piece, str)
            else Prompt("", len(piece))
            for piece in self.pieces
        ]


_reader = RequestReader(EmbeddingsRequest, VALUES_MAX)


def parse(body: bytes) -> EmbeddingsWork:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request, extras = _reader.read(body)
    pieces = pieces_of(request.input, "input", INPUTS_MAX)
    if request.dimensions is not None and request.dimensions < 1:
        raise CallerError("invalid_value", "dimensions must be at least 1.", field="dimensions")
    return EmbeddingsWork(request, pieces, extras, len(body))


def upstream_body(texts: list[str]) -> bytes:
    """The v2 infer request: texts in as JSON, vectors out as binary."""
    return msgspec.json.encode(
        {
            "inputs": [{"name": "TEXT", "shape": [len(texts)], "datatype": "BYTES", "data": texts}],
            "outputs": [
                {"name": "EMBEDDING", "parameters": {"binary_data": True}},
                {"name": "TOKENS", "parameters": {"binary_data": False}},
            ],
        }
    )


def read_answer(prefix: bytes, tensors: bytes, texts: int) -> tuple[list[int], int]:
    """Token counts per text and the length of a vector, for so many `texts`.

    Raises `WorldError` 502 for what does not say both, or says it of other texts.
    """
    try:
        outputs = {each["name"]: each for each in msgspec.json.decode(prefix)["outputs"]}
        tokens = [count_of(count) for count in outputs["TOKENS"]["data"]]
        rows, width = map(count_of, outputs["EMBEDDING"]["shape"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise errors.unmeasurable() from None
    if not rows == len(tokens) == texts or not width or len(tensors) != rows * width * 4:
        raise errors.unmeasurable()
    return tokens, width


def answer(
    request: EmbeddingsRequest,
    tensors: bytes,
    width: int,
    model: str,
    tokens_in: int,
    *,
    may_shorten: bool,
) -> bytes:
    """OpenAI's answer: floats, or the little-endian float32 bytes in base64.

    `may_shorten`: the model was trained so that the first numbers of a vector are one, too
    (Matryoshka); what is left is brought back to length 1. Raises `CallerError` 400 otherwise.
    """
    dimensions = request.dimensions or width
    if dimensions > width or (dimensions < width and not may_shorten):
        most = "at most" if may_shorten else "exactly"
        raise CallerError(
            "invalid_value", f"This model has {most} {width} dimensions.", field="dimensions"
        )
    step = width * 4
    rows = [tensors[start : start + step] for start in range(0, len(tensors), step)]
    if dimensions < width:
        rows = [_shortened(row[: dimensions * 4]) for row in rows]
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(request, row)}
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _shortened(row: bytes) -> bytes:
    numbers = array("f", row)
    length = math.hypot(*numbers)
    return array("f", [number / length for number in numbers]).tobytes() if length else row


def _vector(request: EmbeddingsRequest, row: bytes) -> Any:
    if request.encoding_format == "base64":
        return base64.b64encode(row).decode()
    return array("f", row).tolist()
