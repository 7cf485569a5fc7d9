"""Frames for tests: believable values, any of which a test may replace."""

from typing import Any
from uuid import UUID

from meterplane.contracts.usage import Admit, Checkpoint, Settle
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7

TENANT = UUID("018f0000-0000-7000-8000-000000000001")
PROJECT = UUID("018f0000-0000-7000-8000-000000000002")
KEY = UUID("018f0000-0000-7000-8000-000000000003")
PRICES = UUID("018f0000-0000-7000-8000-000000000004")


def admit(request_id: UUID | None = None, **replaced: Any) -> Admit:
    values: dict[str, Any] = {
        "request_id": request_id or uuid7(),
        "tenant_id": TENANT,
        "project_id": PROJECT,
        "key_id": KEY,
        "model": "tiny-lm",
        "surface": "openai.chat",
        "stream": True,
        "currency": "USD",
        "price_version_id": PRICES,
        "input_token_pico": 150_000,
        "output_token_pico": 600_000,
        "request_pico": 1_000_000,
        "reserved_nano": 900_000,
        "admitted_at_ms": clock.now_ms(),
    }
    return Admit(**(values | replaced))


def checkpoint(request_id: UUID, tokens_out: int) -> Checkpoint:
    return Checkpoint(
        request_id=request_id, tokens_in=10, tokens_out=tokens_out, bytes_out=4 * tokens_out
    )


def settle(request_id: UUID | None = None, **replaced: Any) -> Settle:
    values: dict[str, Any] = {
        "request_id": request_id or uuid7(),
        "tenant_id": TENANT,
        "project_id": PROJECT,
        "key_id": KEY,
        "model": "tiny-lm",
        "surface": "openai.chat",
        "stream": True,
        "status": "ok",
        "http_status": 200,
        "tokens_in": 10,
        "tokens_out": 20,
        "requests": 1,
        "rows": 0,
        "bytes_in": 100,
        "bytes_out": 200,
        "provenance": "engine",
        "currency": "USD",
        "price_version_id": PRICES,
        "cost_nano": 14_500,
        "reserved_nano": 900_000,
        "admitted_at_ms": clock.now_ms(),
        "settled_at_ms": clock.now_ms() + 40,
        "first_byte_ms": 12,
        "total_ms": 40,
    }
    return Settle(**(values | replaced))
