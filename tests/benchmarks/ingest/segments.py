"""Segments as gateways seal and the shipper sends them: made before anything is measured."""

import hashlib
import random
import zlib
from uuid import UUID

import msgspec

from meterplane.contracts.usage import Admit, Checkpoint, SegmentMessage, Settle, encode
from meterplane.journal import framing
from meterplane.journal.segment import encode_header
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.kernel.limits import SEGMENT_BYTES_MAX
from tests.benchmarks.ingest.server import Key

MODELS = ("tiny-lm", "all-minilm-l6-v2", "identity")
PRICES = UUID(int=1)
TEAMS = ("search", "support", "research", "ops")


def usage_of(key: Key, chance: random.Random) -> tuple[Admit, Checkpoint, Settle]:
    """One request: a third is tagged by its team, one in thirty fails."""
    admitted_at_ms = clock.now_ms()
    tokens_in, tokens_out = chance.randrange(20, 2000), chance.randrange(1, 500)
    total_ms = chance.randrange(20, 3000)
    cost = tokens_in * 150 + tokens_out * 600
    about = {
        "request_id": uuid7(admitted_at_ms),
        "tenant_id": key.tenant_id,
        "project_id": key.project_id,
        "key_id": key.id,
        "model": chance.choice(MODELS),
        "surface": "openai.chat",
        "stream": chance.random() < 0.5,
        "currency": "USD",
        "price_version_id": PRICES,
        "reserved_nano": cost * 2,
        "admitted_at_ms": admitted_at_ms,
        "epoch": "0194c7a2b3f07a1e9d2c4b5a69788796",
        "tags": {"team": chance.choice(TEAMS)} if chance.random() < 1 / 3 else {},
    }
    settle = Settle(
        **about,
        status="ok" if chance.random() < 29 / 30 else "error",
        http_status=200,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        requests=1,
        rows=1,
        bytes_in=tokens_in * 4,
        bytes_out=tokens_out * 4,
        provenance="engine",
        cost_nano=cost,
        settled_at_ms=admitted_at_ms + total_ms,
        first_byte_ms=total_ms // 4,
        total_ms=total_ms,
        server="triton-0.internal:8001",
        queue_us=chance.randrange(5000),
        compute_us=total_ms * 900,
    )  # type: ignore[arg-type]
    prices = {"input_token_pico": 150_000, "output_token_pico": 600_000, "request_pico": 0}
    admit = Admit(**about, **prices, reservation=str(key.id))  # type: ignore[arg-type]
    return (
        admit,
        Checkpoint(
            request_id=admit.request_id,
            tokens_in=tokens_in,
            tokens_out=tokens_out // 2,
            bytes_out=tokens_out * 2,
        ),
        settle,
    )


def segment(keys: list[Key], chance: random.Random) -> tuple[bytes, int]:
    """A full segment as the broker has it, and how many events are in it."""
    segment_id, events, length = uuid7(), 0, 0
    # One key in eight has half of the traffic, as it is with customers.
    weights = [8 if number % 8 == 0 else 1 for number in range(len(keys))]
    parts = [encode_header(segment_id, "bench")]
    while length < SEGMENT_BYTES_MAX:
        (key,) = chance.choices(keys, weights)
        admit, checkpoint, settle = usage_of(key, chance)
        frames = (admit, checkpoint, settle) if settle.stream else (admit, settle)
        for frame in frames:
            parts.append(framing.encode(encode(frame)))
            length += len(parts[-1])
        events += 1
    data = b"".join(parts)
    message = SegmentMessage(
        segment_id=segment_id,
        gateway="bench",
        sha256=hashlib.sha256(data).hexdigest(),
        body=zlib.compress(data, 1),
    )
    return msgspec.json.encode(msgspec.to_builtins(message)), events
