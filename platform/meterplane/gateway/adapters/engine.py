"""What a text engine on Triton is, whatever its tensors: a request, then pieces, each counted."""

from typing import Any, Protocol

import msgspec

from meterplane.contracts.usage import Provenance


class Piece(msgspec.Struct, frozen=True):
    """One response of an engine.

    `texts` and `finish_reasons` are per sequence; `index` is the first one's. `tokens_in` is the
    prompt's (0 when not said), `tokens_out` what this piece adds over all its sequences.
    """

    texts: list[str]
    finish_reasons: list[str | None]
    tokens_in: int
    tokens_out: int
    index: int = 0
    logprobs: list[Any] | None = None


class Engine(Protocol):
    """One kind of engine. Pure: values in, bytes out, and back."""

    provenance: Provenance

    def body(self, prompt: str, sampling: dict[str, Any], stream: bool) -> bytes:
        """The body of `generate_stream`, built from an allow-list."""
        ...

    def read(self, event: dict[str, Any]) -> Piece:
        """One event. Raises `WorldError` 502 when it cannot be measured."""
        ...


def as_list(value: Any) -> list[Any]:
    """Triton writes a tensor of one element as a scalar."""
    return value if isinstance(value, list) else [value]
