"""What one surface makes of a request: bounded, checked, and ready to be admitted and forwarded.

Parsing is pure: bytes in, a `Work` or a `CallerError` out, nothing reached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from meterplane.contracts.policy import KeyPolicy, ModelPolicy
from meterplane.contracts.usage import Surface
from meterplane.gateway import errors
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import pico_to_nano_ceil

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most a request can use: what its reservation is made from."""

    tokens_in_max: int
    tokens_out_max: int
    rows: int


@dataclass(frozen=True, slots=True)
class Work:
    """A parsed request of one surface. `bounds` depends on the model's limits in the policy."""

    surface: Surface
    model: str
    adapters: frozenset[str]
    stream: bool
    bytes_in: int
    bounds: Callable[[ModelPolicy], Bounds]
    body: Any
    version: str = ""

    def model_policy(self, policy: KeyPolicy) -> ModelPolicy:
        """The model under this policy. Raises `CallerError` 404, or 400 on the wrong surface."""
        model = policy.models.get(self.model)
        if model is None:
            raise errors.model_not_found(self.model)
        if model.adapter not in self.adapters:
            raise CallerError(
                "wrong_surface",
                f"The model {self.model!r} is not served here. {_WHERE[model.adapter]}",
                field="model",
            )
        return model

    def worst_cost_nano(self, policy: KeyPolicy) -> int:
        """The reservation under this policy: upper bounds at its unit prices, rounded up."""
        model = self.model_policy(policy)
        bounds, prices = self.bounds(model), model.prices
        return pico_to_nano_ceil(
            bounds.tokens_in_max * prices.input_token_pico
            + bounds.tokens_out_max * prices.output_token_pico
            + prices.request_pico
        )


_WHERE = {
    "vllm": "Use POST /v1/chat/completions.",
    "embedding": "Use POST /v1/embeddings.",
    "tensor": "Use POST /v2/models/{model}/infer.",
}


def decode_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body. Raises `CallerError` 400 saying what is wrong with it."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise CallerError("invalid_json", f"The body is not valid JSON: {problem}.") from None
    if not isinstance(document, dict):
        raise CallerError("invalid_json", "The body must be a JSON object.")
    return document


def convert(document: dict[str, Any], wanted: type[T]) -> T:
    """The document as `wanted`; an unknown or ill-typed field is refused by its name."""
    known = {field.encode_name for field in msgspec.structs.fields(wanted)}
    for name in document:
        if name not in known:
            raise CallerError(
                "unknown_parameter",
                f"The parameter {name[:80]!r} is not supported here; remove it.",
                field=name[:80],
            )
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as problem:
        message = str(problem)
        where = message.partition("`$")[2].strip("`").lstrip(".") or None
        if where is None:
            missing = message.partition("required field `")[2].partition("`")[0]
            where = missing or None
        raise CallerError("invalid_value", f"{message}.", field=where) from None
