"""`POST /v1/embeddings` over a model that takes TEXT and answers EMBEDDING and TOKENS."""

import base64
from array import array
from typing import Any, Literal

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.gateway.surface import Bounds, Work, convert, decode_json
from meterplane.kernel.errors import CallerError, WorldError

ADAPTERS = frozenset({"embedding"})
INPUTS_MAX = 2048
SPECIAL_TOKENS = 2  # a start and an end per text


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """What is supported of OpenAI's request. Anything else is refused by name, never dropped."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


def parse(body: bytes) -> Work:
    """The work in a request body. Raises `CallerError` 400 naming the field."""
    request = convert(decode_json(body), EmbeddingsRequest)
    texts = request.texts()
    if not texts or len(texts) > INPUTS_MAX:
        raise CallerError("invalid_value", f"Send 1 to {INPUTS_MAX} texts.", field="input")
    if any(not text for text in texts):
        raise CallerError("invalid_value", "A text to embed is empty.", field="input")
    # WordPiece makes at most one token of each byte.
    tokens_in_max = sum(len(text.encode()) + SPECIAL_TOKENS for text in texts)
    return Work(
        surface="openai.embeddings",
        model=request.model,
        adapters=ADAPTERS,
        stream=False,
        bytes_in=len(body),
        bounds=lambda _: Bounds(tokens_in_max, 0, len(texts)),
        body=request,
    )


def upstream_body(work: Work, model: ModelPolicy) -> bytes:
    """The v2 infer request: texts in as JSON, vectors out as binary."""
    texts = work.body.texts()
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
        raise _unmeasurable() from None
    if rows != len(tokens) or len(tensors) != rows * width * 4:
        raise _unmeasurable()
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


def _unmeasurable() -> WorldError:
    return WorldError(
        "unmeasurable_answer",
        "The model did not report its token counts, so this answer cannot be served.",
        status=502,
    )
