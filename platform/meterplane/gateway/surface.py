"""What one surface makes of a request: bounded, checked, and ready to be admitted and forwarded.

Parsing is pure: bytes in, a `Work` or a `CallerError` out, nothing reached.
"""

from typing import Generic, Protocol, TypeVar

import msgspec

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing
from meterplane.contracts.usage import Surface
from meterplane.gateway.prompts import Prompts
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.money import pico_to_nano_ceil

T = TypeVar("T", bound=msgspec.Struct)
NO_PROMPTS = Prompts()  # plain chats, no tokenizers
# Engines that report no counts: what they are given and give is counted by the model's tokenizer.
UNCOUNTED = ("llmapi",)


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """The most a request can use: what its reservation is made from.

    `open_sequences` are answers that the caller named no bound for: ours applies to each of them,
    and may be lowered. 0 where one was named, or no tokens are made.
    """

    tokens_in_max: int
    tokens_out_max: int
    rows: int
    open_sequences: int = 0


class Offer(msgspec.Struct, frozen=True, gc=False):
    """One model as one request may use it: its limits, how it is reached, what it costs.

    `prompts` writes what a text engine is given, and counts it where the model's tokenizer is here.
    `output_tokens_fitted` is a bound below the model's own, for a request that names none.
    """

    model: ModelPolicy
    serving: ModelServing
    prices: UnitPrices
    prompts: Prompts = NO_PROMPTS
    output_tokens_fitted: int | None = None
    reserve_prices: UnitPrices | None = None

    @property
    def held_prices(self) -> UnitPrices:
        """What a reservation is made at: the price told, or a contract's that is above it."""
        return self.reserve_prices or self.prices

    def output_tokens(self, asked: int | None) -> int:
        """Output tokens per choice: what was asked, or our own bound, within the model's limit."""
        model = self.model
        if asked is None:
            asked = self.output_tokens_fitted
        if asked is None:
            asked = model.output_tokens_reserved
        if asked is None:
            asked = model.output_tokens_default
        return min(asked, model.output_tokens_max)

    def cost_nano_max(self, bounds: Bounds) -> int:
        """What a request within `bounds` costs at most, in nano, rounded up."""
        prices = self.held_prices
        return pico_to_nano_ceil(
            bounds.tokens_in_max * prices.input_token_pico
            + bounds.tokens_out_max * prices.output_token_pico
            + prices.request_pico
        )


class Work(Protocol):
    """A parsed request of one surface.

    `bytes_in` is the body's size, `tensor_bytes_in` of that the tensors without their envelope.
    `metadata` is OpenAI's: tags, where a surface has no such field it is None.
    """

    surface: Surface
    model: str
    stream: bool
    bytes_in: int
    tensor_bytes_in: int

    @property
    def metadata(self) -> dict[str, str] | None:
        """What the body says the request is for."""
        ...

    def bounds(self, offer: Offer) -> Bounds:
        """The most this can use of a model. Raises `CallerError` for what the model does not take.

        Called before admission, and again when the policy turned out to be older than it should.
        """
        ...


class RequestReader(Generic[T]):
    """Reads bodies of one kind. `wanted` forbids unknown fields, nested ones too.

    `values_max` is how many values a body may hold, nested ones too: 16 MB of `{},` become objects
    for seconds, and nobody else is served meanwhile. They are counted first.

    Unknown fields at the top are not lost and not refused here: whether the model's allow-list has
    them is known when the model is.
    """

    def __init__(self, wanted: type[T], values_max: int) -> None:
        self._values_max = values_max
        self._decoder = msgspec.json.Decoder(wanted)
        self._known = {field.encode_name for field in msgspec.structs.fields(wanted)}

    def read(self, body: bytes) -> tuple[T, dict[str, msgspec.Raw]]:
        """The request, and the fields it does not know. Raises `CallerError` 400 naming a field."""
        if len(body) > self._values_max and _holds_more(body, self._values_max):
            raise _too_many_values(body, self._values_max)
        try:
            return self._decoder.decode(body), {}
        except msgspec.ValidationError as problem:
            return self._read_with_extras(body, problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise invalid_json(problem) from None

    def _read_with_extras(
        self, body: bytes, problem: msgspec.ValidationError
    ) -> tuple[T, dict[str, msgspec.Raw]]:
        try:
            body.decode()  # what is forwarded as it came is not looked into by the decoder
            document = _fields.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CallerError("invalid_json", "The body must be a JSON object.") from None
        extras = {name: document.pop(name) for name in list(document) if name not in self._known}
        if not extras:
            raise _invalid_value(problem) from None
        for name, value in extras.items():
            _check_readable(name, value)
        try:
            return self._decoder.decode(msgspec.json.encode(document)), extras
        except msgspec.ValidationError as other:
            raise _invalid_value(other) from None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _holds_more(body: bytes, values_max: int) -> bool:
    """Whether JSON holds more values: each is the first of its container, or behind a comma."""
    if _beginnings(body) <= values_max:
        return False
    # Most of them may be in its strings.
    bare = body
    if b"\\" in body:
        bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * values_max:
        return True  # a value and its name have two each
    return _beginnings(b"".join(bare.split(b'"')[::2])) > values_max


def _beginnings(part: bytes) -> int:
    return len(part) - len(part.translate(None, b",[{"))  # 16 MB take 15 ms


def _too_many_values(body: bytes, values_max: int) -> CallerError:
    try:
        fields = _fields.decode(body)  # without making what is in them
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        return invalid_json(problem)
    field = max(fields, key=lambda name: len(bytes(fields[name])))[:80] if fields else None
    return CallerError(
        "invalid_value",
        f"The body holds more than {values_max:,} values, most of it in {field}; send less.",
        field=field,
    )


def _check_readable(name: str, value: msgspec.Raw) -> None:
    """Before anything is reserved: some adapters read it, and every server does."""
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise CallerError(
            "invalid_value", f"{name[:80]} cannot be read: {problem}.", field=name[:80]
        ) from None


def check_extras(extras: dict[str, msgspec.Raw], serving: ModelServing) -> None:
    """Refuse a field that this model's allow-list does not have: nothing is silently dropped."""
    for name in extras:
        if name not in serving.parameters:
            raise CallerError(
                "unknown_parameter",
                f"The parameter {name[:80]!r} is not supported by {serving.name!r}; remove it.",
                field=name[:80],
            )


def check_counted(offer: Offer) -> None:
    """Refuse, before anything is reserved, what nobody could count. Raises `WorldError` 503."""
    if offer.model.adapter in UNCOUNTED and offer.prompts.tokenizer(offer.serving) is None:
        raise WorldError(
            "tokenizer_missing",
            f"The operator must give {offer.model.name!r} its tokenizer (TOKENIZERS_DIR): its"
            " engine reports no token counts, and what cannot be counted is not served.",
            retry_after_s=None,
        )


def invalid_json(problem: Exception) -> CallerError:
    """A body that is not JSON."""
    return CallerError("invalid_json", f"The body is not valid JSON: {problem}.")


def _invalid_value(problem: msgspec.ValidationError) -> CallerError:
    message = str(problem)
    where = message.partition("`$")[2].strip("`").lstrip(".") or None
    if where is None:
        missing = message.partition("required field `")[2].partition("`")[0]
        where = missing or None
    return CallerError("invalid_value", f"{message}.", field=where)
