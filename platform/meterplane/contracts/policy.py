"""What the control plane compiles for one API key and the gateway obeys. Version 1.

Stored as one JSON document in `gateway_policy.document`, beside its digest and version. The
gateway never reads anything else about a tenant.
"""

from typing import Literal
from uuid import UUID

import msgspec

Adapter = Literal["vllm", "tensorrtllm", "llmapi", "openai", "embedding", "tensor"]
KeyStatus = Literal["active", "revoked", "suspended"]
BudgetScope = Literal["key", "project", "organisation"]


class UnitPrices(msgspec.Struct, frozen=True, kw_only=True):
    """Pico of the policy's currency per unit."""

    input_token_pico: int
    output_token_pico: int
    request_pico: int


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One model the key may use, what it costs and how much of it one request may ask for.

    `upstream` is the model's name on the server. `context_tokens_max` bounds input + output,
    `output_tokens_max` clamps `max_tokens`; `output_tokens_default` applies when none is asked.
    `batch_prices` apply to lines of the Batch API; None: the model is not offered there.
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
    description: str = ""
    batch_prices: UnitPrices | None = None
    serving_version: int = 0
    created_at_s: int = 0


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """GCRA: `requests_per_minute` sustained, `burst` requests at once."""

    requests_per_minute: int
    burst: int


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A spend limit of one scope in one window (`2026-11` for a calendar month, UTC)."""

    scope: BudgetScope
    scope_id: UUID
    window: Literal["month"]
    limit_nano: int


class KeyPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway needs to know about one API key."""

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
    rate: RateLimit | None
    budgets: list[Budget]


_decoder = msgspec.json.Decoder(KeyPolicy)


def encode(policy: KeyPolicy) -> bytes:
    """The JSON document of `gateway_policy.document`."""
    return msgspec.json.encode(policy)


def decode(document: bytes | str) -> KeyPolicy:
    """Raises `msgspec.ValidationError` when the document is not a version-1 policy."""
    return _decoder.decode(document)
