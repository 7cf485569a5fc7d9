"""What chat and text completions have in common: sampling, limits, and the stream's options."""

from typing import Protocol

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.contracts.usage import Surface
from meterplane.gateway.surface import Bounds, Offer
from meterplane.kernel.errors import CallerError

CHOICES_MAX = 8
STOPS_MAX = 16


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
    metadata: dict[str, str] | None = None  # as above

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
    """A chat or a text completion, as adapters see it."""

    surface: Surface
    model: str
    stream: bool
    bytes_in: int
    tensor_bytes_in: int
    request: TextRequest
    extras: dict[str, msgspec.Raw]

    def bounds(self, offer: Offer) -> Bounds:
        """As in `surface.Work`."""
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


def output_tokens(request: TextRequest, model: ModelPolicy) -> int:
    """Output tokens per choice: what was asked, or the default, clamped to the model's limit."""
    asked = request.asked_tokens
    return min(model.output_tokens_default if asked is None else asked, model.output_tokens_max)
