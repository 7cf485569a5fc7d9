"""What the gateway writes into the journal and metering reads from it. Version 1.

One admitted request leaves exactly one `Settle`. `Admit` is written before the request is
forwarded, `Checkpoint` while a stream runs; both exist so that a crash can still be settled.
Encoded as msgpack maps; a reader ignores fields it does not know, so fields may be added. Ids are
their 16 bytes; a reader takes them as text, too, which is how they were written at first.
"""

from typing import Literal, get_args
from uuid import UUID

import msgspec

from meterplane.kernel.money import pico_to_nano_half_away

Surface = Literal[
    "openai.chat",
    "openai.completions",
    "openai.embeddings",
    "kserve.infer",
    "kserve.generate",
    "grpc.infer",
    "grpc.stream_infer",
]
ServiceTier = Literal["standard", "batch"]
Priority = Literal["high", "normal", "low"]
# How a request was served: in which class, where, on what. Sums tell it apart, so prices may.
Served = Literal["priority", "region", "gpu_type"]
SERVED: tuple[Served, ...] = get_args(Served)
Status = Literal["ok", "error", "cancelled", "interrupted"]
# Where the counts came from: the engine's own report; the model's tokenizer, over the text; an
# estimate (one token a chunk, where the engine reports nothing and there is no tokenizer); units we
# counted at the door (requests, rows); or the last checkpoint before a crash.
Provenance = Literal["engine", "tokenizer", "estimate", "units", "checkpoint"]

# OpenAI's bounds on `metadata`, but for the value: longer ones are texts and no names of teams.
TAGS_MAX = 16
TAG_NAME_CHARS_MAX = 64
TAG_VALUE_CHARS_MAX = 256


class Admit(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="admit", tag_field="kind"):
    """A request passed admission. Everything known before it was forwarded.

    Unit prices are pinned here, in pico per unit, with the price-book version they came from. A
    request that moves to a fallback model is admitted again under the same id: the last one counts.
    `model` is the one that serves; `requested_model` what was asked for where that differs. `epoch`
    is the admission Redis' when it reserved, `reservation` the name of what it reserved under.
    `tags` are the caller's own, to tell teams and features apart: see `Settle`, as for `priority`,
    `region` and `gpu_type`.
    """

    request_id: UUID
    tenant_id: UUID
    project_id: UUID
    key_id: UUID
    model: str
    surface: Surface
    stream: bool
    currency: str
    price_version_id: UUID
    input_token_pico: int
    output_token_pico: int
    request_pico: int
    reserved_nano: int
    admitted_at_ms: int
    service_tier: ServiceTier = "standard"
    requested_model: str = ""
    deployment: str = ""
    epoch: str = ""
    reservation: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    priority: Priority = "normal"
    region: str = ""
    gpu_type: str = ""


class Checkpoint(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="checkpoint", tag_field="kind"
):
    """Counts so far of a running stream. The last one is what a crash is settled from."""

    request_id: UUID
    tokens_in: int
    tokens_out: int
    bytes_out: int


class Settle(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="settle", tag_field="kind"):
    """One finished request: the usage event. Self-contained; metering reads nothing else.

    `cost_nano` is quantity times pinned unit price, rounded half away from zero to nano.
    `first_byte_ms` and `total_ms` are measured from admission. `queue_us` is from the request's
    last byte to the first byte forwarded, `compute_us` from there to the last byte of the server's
    answer. `rows` is the batch dimension; `tensor_bytes_in` and `_out` are tensors without their
    envelope. `deployment` is the arm of a weighted split that served, `retries` how many servers
    were asked before it. `trace_id` is the W3C trace's, 32 hex digits. `epoch` is
    the admission Redis' in which the request was reserved: what tells spent grants from stranded.
    `tokens_out_stop` is where the gateway had the engine stop one answer that was asked for without
    a bound; 0 where the caller named one, or asked for several answers or none. `tags` name who or
    what the request was for, as its caller told: at most `TAGS_MAX` of them, a name of
    `TAG_NAME_CHARS_MAX` characters each with a value of `TAG_VALUE_CHARS_MAX`. `priority` is the
    class it waited in. `region` and `gpu_type` are those of the target that served, as the catalog
    calls them; empty where it does not say.
    """

    request_id: UUID
    tenant_id: UUID
    project_id: UUID
    key_id: UUID
    model: str
    surface: Surface
    stream: bool
    status: Status
    http_status: int
    tokens_in: int
    tokens_out: int
    requests: int
    rows: int
    bytes_in: int
    bytes_out: int
    provenance: Provenance
    currency: str
    price_version_id: UUID
    cost_nano: int
    reserved_nano: int
    admitted_at_ms: int
    settled_at_ms: int
    first_byte_ms: int
    total_ms: int
    server: str = ""
    service_tier: ServiceTier = "standard"
    requested_model: str = ""
    deployment: str = ""
    tensor_bytes_in: int = 0
    tensor_bytes_out: int = 0
    queue_us: int = 0
    compute_us: int = 0
    retries: int = 0
    trace_id: str = ""
    epoch: str = ""
    tokens_out_stop: int = 0
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    priority: Priority = "normal"
    region: str = ""
    gpu_type: str = ""


Frame = Admit | Checkpoint | Settle

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """One frame's payload."""
    return _encoder.encode(frame)


def decode(payload: bytes) -> Frame:
    """The frame in a payload. Raises `msgspec.ValidationError` on anything else."""
    return _decoder.decode(payload)


class SegmentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the shipper hands to ingest: one sealed journal segment, as it stands on disk.

    `segment_id` names it for ever (UUIDv7 minted when the segment was opened); `sha256` is over
    the uncompressed bytes. Carried as JSON: `body` is base64 of zlib. `manifest` is what the
    shipper read in it by itself: the msgpack of `[[model, server, ids], ...]`, ids being the 16
    bytes of each SETTLE's request one after another. Reconciliation holds what was stored to it.
    """

    segment_id: UUID
    gateway: str
    sha256: str
    body: bytes
    manifest: bytes = b""


def settle_orphan(admit: Admit, last: Checkpoint | None, settled_at_ms: int) -> Settle:
    """Settle a request whose process died: billed for what its last checkpoint proves.

    A stream without a checkpoint delivered nothing we can prove, so its tokens are zero; the
    request itself is counted but free: nobody pays for our crash before the first output. It never
    costs more than was reserved, as an answer that came to its end does not.
    """
    tokens_in = last.tokens_in if last else 0
    tokens_out = last.tokens_out if last else 0
    requests = 1 if last else 0
    return Settle(
        request_id=admit.request_id,
        tenant_id=admit.tenant_id,
        project_id=admit.project_id,
        key_id=admit.key_id,
        model=admit.model,
        surface=admit.surface,
        stream=admit.stream,
        status="interrupted",
        http_status=0,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        requests=requests,
        rows=0,
        bytes_in=0,
        bytes_out=last.bytes_out if last else 0,
        provenance="checkpoint",
        currency=admit.currency,
        price_version_id=admit.price_version_id,
        # An engine's counts may exceed its model's bound. Metering sets aside what costs more than
        # its reservation, and then nothing at all would be billed.
        cost_nano=min(
            admit.reserved_nano,
            cost_nano(
                tokens_in,
                tokens_out,
                requests,
                input_token_pico=admit.input_token_pico,
                output_token_pico=admit.output_token_pico,
                request_pico=admit.request_pico,
            ),
        ),
        reserved_nano=admit.reserved_nano,
        admitted_at_ms=admit.admitted_at_ms,
        settled_at_ms=settled_at_ms,
        first_byte_ms=0,
        total_ms=max(0, settled_at_ms - admit.admitted_at_ms),
        service_tier=admit.service_tier,
        requested_model=admit.requested_model,
        deployment=admit.deployment,
        epoch=admit.epoch,
        tags=admit.tags,
        priority=admit.priority,
        region=admit.region,
        gpu_type=admit.gpu_type,
    )


def cost_nano(
    tokens_in: int,
    tokens_out: int,
    requests: int,
    *,
    input_token_pico: int,
    output_token_pico: int,
    request_pico: int,
) -> int:
    """Quantities times unit prices, exact in pico, rounded half away from zero to nano."""
    return pico_to_nano_half_away(
        tokens_in * input_token_pico + tokens_out * output_token_pico + requests * request_pico
    )
