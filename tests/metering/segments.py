"""Segments made by hand, for whatever tenant a test has."""

import hashlib
import random
import zlib
from collections.abc import Sequence
from typing import get_args
from uuid import UUID

from meterplane.contracts.usage import (
    Frame,
    Priority,
    Provenance,
    SegmentMessage,
    ServiceTier,
    Settle,
    Surface,
)
from meterplane.journal.segment import encode_segment
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.manifest import manifest_of

PRICES = UUID(int=1)


def settle(tenant, *, at_ms: int | None = None, **changes: object) -> Settle:
    """One usage event of a tenant, admitted at `at_ms`."""
    at_ms = clock.now_ms() if at_ms is None else at_ms
    values: dict[str, object] = {
        "request_id": uuid7(at_ms),
        "tenant_id": tenant.id,
        "project_id": tenant.project_id,
        "key_id": tenant.key_id,
        "model": "tiny-lm",
        "surface": "openai.chat",
        "stream": True,
        "status": "ok",
        "http_status": 200,
        "tokens_in": 10,
        "tokens_out": 20,
        "requests": 1,
        "rows": 1,
        "bytes_in": 100,
        "bytes_out": 200,
        "provenance": "engine",
        "currency": "USD",
        "price_version_id": PRICES,
        "cost_nano": 13_500,
        "reserved_nano": 50_000,
        "admitted_at_ms": at_ms,
        "settled_at_ms": at_ms + 40,
        "first_byte_ms": 5,
        "total_ms": 40,
    }
    return Settle(**(values | changes))  # type: ignore[arg-type]


def random_settles(tenant, chance: random.Random, count: int, days: int = 3) -> list[Settle]:
    """Events over the last `days`, of several models and endings.

    None is of a batch's line that a crash cut: that one is stored under an id of its own.
    """
    now_ms = clock.now_ms()
    kinds = [
        (tier, provenance)
        for tier in get_args(ServiceTier)
        for provenance in get_args(Provenance)
        if (tier, provenance) != ("batch", "checkpoint")
    ]
    return [
        _of_kind(
            tenant,
            chance.choice(kinds),
            at_ms=now_ms - chance.randrange(days * 86_400_000),
            model=chance.choice(["tiny-lm", "identity", "all-minilm-l6-v2"]),
            status=chance.choice(["ok", "ok", "ok", "error", "cancelled"]),
            surface=chance.choice(get_args(Surface)),
            deployment=chance.choice(["", "default", "canary"]),
            priority=chance.choice(get_args(Priority)),
            region=chance.choice(["", "eu-west", "us-east"]),
            gpu_type=chance.choice(["", "H100"]),
            tensor_bytes_in=chance.randrange(10_000),
            compute_us=chance.randrange(10_000),
            tokens_in=chance.randrange(1000),
            tokens_out=chance.randrange(1000),
            cost_nano=chance.randrange(50_000),
            price_version_id=UUID(int=chance.randrange(1, 3)),
        )
        for _ in range(count)
    ]


def _of_kind(tenant, kind: tuple[str, str], **changes: object) -> Settle:
    return settle(tenant, service_tier=kind[0], provenance=kind[1], **changes)  # type: ignore[arg-type]


def message(frames: Sequence[Frame], segment_id: UUID | None = None) -> SegmentMessage:
    """The message a shipper would send for these frames."""
    segment_id = segment_id or uuid7()
    manifest = manifest_of([frame for frame in frames if isinstance(frame, Settle)])
    return packed(encode_segment(segment_id, "test", frames), segment_id, manifest)


def packed(data: bytes, segment_id: UUID, manifest: bytes = b"") -> SegmentMessage:
    """The message for a segment's bytes, whatever they are."""
    return SegmentMessage(
        segment_id=segment_id,
        gateway="test",
        sha256=hashlib.sha256(data).hexdigest(),
        body=zlib.compress(data),
        manifest=manifest,
    )
