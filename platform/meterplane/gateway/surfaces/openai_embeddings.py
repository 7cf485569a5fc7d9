"""`POST /v1/embeddings` over a model that takes TEXT and answers EMBEDDING and TOKENS."""

import base64
from array import array
from typing import Any, Literal

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway import errors
from meterplane.gateway.surface import Bounds, Offer, RequestReader, check_extras
from meterplane.kernel.errors import CallerError

INPUTS_MAX = 2048
SPECIAL_TOKENS = 2  # a start and an end per text


class EmbeddingsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is supported of OpenAI's request. Anything else is refused by name, never dropped."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class EmbeddingsWork:
    """Texts to embed, or their tokens."""

    __slots__ = ("bytes_in", "extras", "model", "request")
    surface: Surface = "openai.embeddings"
    stream = False
    tensor_bytes_in = 0

    def __init__(
        self, request: EmbeddingsRequest, extras: dict[str, msgspec.Raw], bytes_in: int
    ) -> None:
        self.request = request
        self.extras = extras
        self.model = request.model
        self.bytes_in = bytes_in

    def bounds(self, offer: Offer) -> Bounds:
        """WordPiece and byte-level BPE make at most one token of each byte."""
        check_extras(self.extras, offer.serving)
        texts = self.request.texts()
        tokens_in_max = sum(len(text.encode()) + SPECIAL_TOKENS for text in texts)
        return Bounds(tokens_in_max, 0, len(texts))


_reader = RequestReader(EmbeddingsRequest)


def parse(body: bytes) -> EmbeddingsWork:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request, extras = _reader.read(body)
    texts = request.texts()
    if not texts or len(texts) > INPUTS_MAX:
        raise CallerError("invalid_value", f"Send 1 to {INPUTS_MAX} texts.", field="input")
    if any(not text for text in texts):
        raise CallerError("invalid_value", "A text to embed is empty.", field="input")
    return EmbeddingsWork(request, extras, len(body))


def upstream_body(work: EmbeddingsWork) -> bytes:
    """The v2 infer request: texts in as JSON, vectors out as binary."""
    texts = work.request.texts()
    return msgspec.json.encode(
        {
            "inputs": [{"name": "TEXT", "shape": [len(texts)], "datatype": "BYTES", "data": texts}],
            "outputs": [
                {"name": "EMBEDDING", "parameters": {"binary_data": True}},
                {"name": "TOKENS", "parameters": {"binary_data": False}},
            ],
        }
    )


def read_answer(prefix: bytes, tensors: bytes) -> tuple[list[int], int]:
    """Token counts per text and the length of a vector. Raises `WorldError` 502."""
    try:
        outputs = {each["name"]: each for each in msgspec.json.decode(prefix)["outputs"]}
        tokens = [int(count) for count in outputs["TOKENS"]["data"]]
        rows, width = outputs["EMBEDDING"]["shape"]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise errors.unmeasurable() from None
    if rows != len(tokens) or len(tensors) != rows * width * 4:
        raise errors.unmeasurable()
    return tokens, width


def answer(request: EmbeddingsRequest, tensors: bytes, width: int, tokens_in: int) -> bytes:
    """OpenAI's answer: floats, or the little-endian float32 bytes in base64."""
    if request.dimensions is not None and request.dimensions != width:
        raise CallerError(
            "invalid_value", f"This model has {width} dimensions and no other.", field="dimensions"
        )
    step = width * 4
    rows = [tensors[start : start + step] for start in range(0, len(tensors), step)]
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(request, row)}
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": request.model, "usage": usage}
    )


def _vector(request: EmbeddingsRequest, row: bytes) -> Any:
    if request.encoding_format == "base64":
        return base64.b64encode(row).decode()
    return array("f", row).tolist()
