"""`POST /v2/models/{m}/generate` and `generate_stream`: Triton's JSON protocol, read and bounded.

Extra keys of such a body become input tensors where the model declares them, and request parameters
where it does not. So each kind of model has its list of keys: a path on the server's disk, an
address it would fetch or a sequence id of another tenant cannot be among them. What bounds the
output is always written by us, also when the caller did not say it.
"""

from typing import Any

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway.surface import Bounds, Offer, check_counted, invalid_json
from meterplane.gateway.surfaces import kserve_models
from meterplane.gateway.surfaces.generate_keys import (
    ASKED_COUNTS,
    KEYS,
    LEAST_TOKENS,
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    VLLM_SAMPLING,
)
from meterplane.kernel.errors import CallerError

CHOICES_MAX = 8
SPECIAL_TOKENS = 2  # a start and an end
COUNTS = ("num_input_tokens", "num_output_tokens")

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class GenerateWork:
    """A body of the generate protocol. `asks_counts`: the caller wants the counts in the answer."""

    __slots__ = ("asks_counts", "bytes_in", "document", "model", "stream", "version")
    surface: Surface = "kserve.generate"
    metadata = None
    tensor_bytes_in = 0

    def __init__(
        self,
        model: str,
        version: str,
        document: dict[str, msgspec.Raw],
        bytes_in: int,
        *,
        stream: bool,
    ) -> None:
        self.model = model
        self.version = version
        self.document = document
        self.bytes_in = bytes_in
        self.stream = stream
        self.asks_counts = [
            count
            for count, flag in zip(COUNTS, ASKED_COUNTS, strict=True)
            if document.get(flag) is not None and bytes(document[flag]) == b"true"
        ]

    def bounds(self, offer: Offer) -> Bounds:
        """Tokens of a text engine; one request of anything else."""
        kserve_models.check_version(offer.serving, self.version, self.model)
        _check_keys(self.document, offer)
        if offer.model.adapter not in KEYS:
            return Bounds(0, 0, 1)
        check_counted(offer)
        asked = asked_of(self.document, offer)
        tokens_in_max = len(asked.prompt.encode()) + SPECIAL_TOKENS
        if offer.model.context_tokens_max:
            tokens_in_max = min(tokens_in_max, offer.model.context_tokens_max)
        tokens_out_max = asked.tokens * asked.choices
        return Bounds(tokens_in_max, tokens_out_max, 1, asked.choices if asked.open else 0)

    def upstream_body(self, offer: Offer) -> bytes:
        """What goes to the engine: the caller's keys, our bound, and the counts we need."""
        adapter = offer.model.adapter
        if adapter not in KEYS:
            return msgspec.json.encode(self.document)
        asked = asked_of(self.document, offer)
        document: dict[str, Any] = dict(self.document)
        if adapter == "vllm":
            document.pop("parameters", None)
            if asked.stream is not None:
                document.setdefault("stream", asked.stream)
            document["sampling_parameters"] = msgspec.json.encode(
                asked.sampling | {"max_tokens": asked.tokens}
            ).decode()
        elif adapter == "tensorrtllm":
            document["max_tokens"] = asked.tokens
        else:
            document["sampling_param_max_tokens"] = asked.tokens
        if adapter != "llmapi":
            document |= dict.fromkeys(ASKED_COUNTS, True)
        return msgspec.json.encode(document)


class Asked(msgspec.Struct, frozen=True):
    """What a text engine is asked for; `tokens` is per choice, within the model's limit.

    `open`: the length of an answer is ours to bound, the caller named neither most nor least.
    """

    prompt: str
    tokens: int
    choices: int
    open: bool
    sampling: dict[str, Any] = {}
    stream: bool | None = None


def parse(model: str, version: str, body: bytes, *, stream: bool) -> GenerateWork:
    """The work in a body. Raises `CallerError` 400."""
    try:
        body.decode()  # what is forwarded as it came is not looked into by the decoder
        document = _decoder.decode(body)
    except msgspec.ValidationError:
        raise CallerError("invalid_json", "the request body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise invalid_json(problem) from None
    return GenerateWork(model, version, document, len(body), stream=stream)


def asked_of(document: dict[str, msgspec.Raw], offer: Offer) -> Asked:
    """Prompt and bounds in an engine's own words. Raises `CallerError` 400 naming the key."""
    model = offer.model
    prompt = _prompt(document)
    if model.adapter == "vllm":
        return _asked_of_vllm(document, offer, prompt)
    if model.adapter == "tensorrtllm":
        tokens = _whole(document, "max_tokens")
        beams = _whole(document, "beam_width") or 1
        sequences = _whole(document, "num_return_sequences") or 1
        choices = max(beams, sequences)
    else:
        tokens = _whole(document, "sampling_param_max_tokens")
        choices = _whole(document, "sampling_param_n") or 1
    is_open = tokens is None and LEAST_TOKENS.isdisjoint(document)
    return Asked(prompt, _tokens(tokens, offer, is_open), _choices(choices), is_open)


def _asked_of_vllm(document: dict[str, msgspec.Raw], offer: Offer, prompt: str) -> Asked:
    sampling = _sampling(document)
    stream = sampling.pop("stream", None)
    allowed = VLLM_SAMPLING | set(offer.serving.parameters)
    for name in sampling:
        if name not in allowed:
            raise CallerError(
                "unknown_parameter", f"the sampling parameter {name[:80]!r} is not allowed"
            )
    asked = _number(sampling.get("max_tokens"), "max_tokens")
    is_open = asked is None and LEAST_TOKENS.isdisjoint(sampling)
    return Asked(
        prompt,
        _tokens(asked, offer, is_open),
        _choices(_number(sampling.get("n"), "n") or 1),
        is_open,
        sampling,
        stream if isinstance(stream, bool) else None,
    )


def _sampling(document: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """`sampling_parameters`, JSON in a string; or `parameters`, as the backend's manual shows."""
    source = "sampling_parameters" if "sampling_parameters" in document else "parameters"
    raw: Any = document.get(source, b"{}")
    try:
        if source == "sampling_parameters":
            raw = msgspec.json.decode(raw, type=str) or "{}"
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise CallerError("invalid_value", f"{source} is not what it must be: {problem}") from None


def _prompt(document: dict[str, msgspec.Raw]) -> str:
    raw = document.get("text_input")
    if raw is None:
        raise CallerError("invalid_value", "the input 'text_input' is missing", field="text_input")
    try:
        found: str | list[str] = msgspec.json.decode(raw, type=str | list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = []
    if isinstance(found, str):
        return found
    if len(found) == 1:
        return found[0]
    raise CallerError("invalid_value", "'text_input' must be one string", field="text_input")


def _whole(document: dict[str, msgspec.Raw], name: str) -> int | None:
    raw = document.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = raw  # no number; forwarded as it came, a server could read one
    if isinstance(value, list) and len(value) == 1 and value[0] is not None:
        value = value[0]
    return _number(value, name)


def _number(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CallerError("invalid_value", f"{name} must be a whole number of at least 1")
    return value


def _tokens(asked: int | None, offer: Offer, is_open: bool) -> int:
    if asked is None and not is_open:
        asked = offer.model.output_tokens_default
    return offer.output_tokens(asked)


def _choices(asked: int) -> int:
    if asked > CHOICES_MAX:
        raise CallerError("invalid_value", f"at most {CHOICES_MAX} sequences a request")
    return asked


def _check_keys(document: dict[str, msgspec.Raw], offer: Offer) -> None:
    serving = offer.serving
    known = KEYS.get(offer.model.adapter)
    for name in document:
        if known is not None:
            allowed = name in known or name in serving.parameters
        elif serving.inputs:
            allowed = name in serving.inputs or name in serving.parameters or name == "id"
        else:
            allowed = name in serving.parameters or not (
                name.startswith(RESERVED_PREFIXES) or name in RESERVED_NAMES
            )
        if not allowed:
            raise CallerError(
                "unknown_parameter", f"the key {name[:80]!r} is not allowed for this model"
            )
