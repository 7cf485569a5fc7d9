"""What the control plane compiles for one API key and the gateway obeys. Version 1.

Stored as one JSON document in `gateway_policy.document`, beside its digest and version. The
gateway never reads anything else about a tenant.
"""

from typing import Literal
from uuid import UUID

import msgspec

from meterplane.contracts.usage import Priority as Priority
from meterplane.contracts.usage import Surface

Adapter = Literal["vllm", "tensorrtllm", "llmapi", "openai", "embedding", "tensor"]
KeyStatus = Literal["active", "revoked", "suspended"]
LimitLevel = Literal["organisation", "project", "key", "key_model"]
LimitKind = Literal[
    "requests", "input_tokens", "output_tokens", "total_tokens", "concurrency", "spend"
]
LimitWindow = Literal[
    "second", "minute", "day", "week", "month", "lifetime", "prepaid", "credit", "at_once"
]
LimitMode = Literal["enforce", "notify"]

# Which windows a kind may be set in; `credit` is compiled, never set. Days, weeks (from Monday) and
# months are the calendar's, in UTC.
WINDOWS: dict[LimitKind, tuple[LimitWindow, ...]] = {
    "requests": ("second", "minute", "day"),
    "input_tokens": ("minute", "day"),
    "output_tokens": ("minute", "day"),
    "total_tokens": ("minute", "day"),
    "concurrency": ("at_once",),
    "spend": ("day", "week", "month", "lifetime", "prepaid"),
}


class UnitPrices(msgspec.Struct, frozen=True, kw_only=True):
    """Pico of the policy's currency per unit."""

    input_token_pico: int
    output_token_pico: int
    request_pico: int


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One model the key may use, what it costs and how much of it one request may ask for.

    `upstream` is the model's name on the server. `context_tokens_max` bounds input + output,
    `output_tokens_max` clamps `max_tokens`; `output_tokens_default` applies when none is asked, or
    `output_tokens_reserved` where history tells how many those requests need.
    `batch_prices` apply to lines of the Batch API; None: the model is not offered there.
    `reserve_prices` and `batch_reserve_prices`, where given, are what a request holds until it is
    settled: a contract of the organisation may rate it higher than it is told to cost.
    `serving_version` names the `contracts.serving.ModelServing` that says how the model is reached;
    0: under its upstream name on the gateway's own servers, and nothing else.
    """

    name: str
    upstream: str
    adapter: Adapter
    prices: UnitPrices
    context_tokens_max: int
    output_tokens_max: int
    output_tokens_default: int
    output_tokens_reserved: int | None = None
    description: str = ""
    batch_prices: UnitPrices | None = None
    reserve_prices: UnitPrices | None = None
    batch_reserve_prices: UnitPrices | None = None
    serving_version: int = 0
    created_at_s: int = 0


class AmountStep(msgspec.Struct, frozen=True, kw_only=True):
    """From an instant on the amount of a limit is another."""

    from_ms: int
    amount: int


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of what a key may use, together with all others under the same scope.

    `scope_id` is the organisation's, the project's or the key's; keys that follow one another in a
    rotation share theirs. A `key_model` limit has its key's, and counts requests for `model` only.

    `amount` is in requests, tokens, requests at once, or nano of the policy's currency. Rates (per
    second and minute) are smooth, GCRA: `amount` sustained, `burst` at once (None: `amount`). A
    prepaid balance is spend whose amount is all that was ever paid in. Until `raised_until_ms` the
    amount is `raised_to`. A limit in mode `notify` refuses nothing: its hits are counted.

    The window `credit` is of an organisation held to its credit: `amount` is what its credit covers
    of all that was ever spent, and may fall. Then what a pool was lent above it is spent by nobody.
    `steps` say, in order, what the amount is from instants to come. `generation` tells the pool of
    one time of being held from those before it.
    """

    level: LimitLevel
    scope_id: UUID
    kind: LimitKind
    window: LimitWindow
    amount: int
    burst: int | None = None
    mode: LimitMode = "enforce"
    model: str = ""
    raised_to: int | None = None
    raised_until_ms: int | None = None
    generation: int = 0
    steps: list[AmountStep] = []

    def amount_at(self, at_ms: int) -> int:
        """The amount that holds at an instant."""
        for step in reversed(self.steps):
            if at_ms >= step.from_ms:
                return step.amount
        if self.raised_to is not None and at_ms < (self.raised_until_ms or 0):
            return self.raised_to
        return self.amount


class KeyPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway needs to know about one API key.

    `models` are the models it may use. `surfaces` and `ip_ranges` (CIDR), where given, are the only
    ones it may be used on and from. `request_tokens_max` bounds input and output of one request
    together. `priority` and `weight` decide who is served first where a model is busy: classes
    strictly, organisations of one class by weight.
    """

    version: int
    key_id: UUID
    tenant_id: UUID
    project_id: UUID
    status: KeyStatus
    status_reason: str
    expires_at_ms: int | None
    currency: str
    price_version_id: UUID
    models: dict[str, ModelPolicy]
    limits: list[Limit]
    surfaces: list[Surface] | None = None
    ip_ranges: list[str] | None = None
    request_tokens_max: int | None = None
    priority: Priority = "normal"
    weight: int = 1


_decoder = msgspec.json.Decoder(KeyPolicy)


def encode(policy: KeyPolicy) -> bytes:
    """The JSON document of `gateway_policy.document`."""
    return msgspec.json.encode(policy)


def decode(document: bytes | str) -> KeyPolicy:
    """Raises `msgspec.ValidationError` when the document is not a version-1 policy."""
    return _decoder.decode(document)
