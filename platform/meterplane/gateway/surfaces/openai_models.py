"""`GET /v1/models` and `/v1/models/{id}`: what a key may use, what it costs and how long it may be.

OpenAI's fields first; `pricing` and the limits are beside them, as clients of other gateways read
them. Prices are decimal strings per unit of the policy's currency.
"""

from decimal import Decimal
from typing import Any

import msgspec

from meterplane.contracts.policy import KeyPolicy, ModelPolicy, UnitPrices
from meterplane.kernel.money import PICO

_SURFACES: dict[str, list[str]] = {
    "vllm": ["chat", "completions", "generate"],
    "tensorrtllm": ["chat", "completions", "generate"],
    "llmapi": ["chat", "completions", "generate"],
    "openai": ["chat", "completions", "embeddings"],
    "embedding": ["embeddings"],
    "tensor": ["infer", "generate"],
}


def listed(policy: KeyPolicy) -> bytes:
    """All models of a key, by name."""
    models = sorted(policy.models.values(), key=lambda model: model.name)
    data = [_described(model, policy.currency) for model in models]
    return msgspec.json.encode({"object": "list", "data": data})


def one(model: ModelPolicy, policy: KeyPolicy) -> bytes:
    """One model."""
    return msgspec.json.encode(_described(model, policy.currency))


def _described(model: ModelPolicy, currency: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": model.created_at_s,
        "owned_by": "meterplane",
        "description": model.description,
        "surfaces": _SURFACES[model.adapter],
        "context_length": model.context_tokens_max,
        "max_output_tokens": model.output_tokens_max,
        "pricing": {"currency": currency} | _prices(model.prices),
    }
    if model.batch_prices is not None:
        found["pricing"]["batch"] = _prices(model.batch_prices)
    return found


def _prices(prices: UnitPrices) -> dict[str, str]:
    return {
        "prompt": _decimal(prices.input_token_pico),
        "completion": _decimal(prices.output_token_pico),
        "request": _decimal(prices.request_pico),
    }


def _decimal(pico: int) -> str:
    text = format(Decimal(pico) / PICO, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
