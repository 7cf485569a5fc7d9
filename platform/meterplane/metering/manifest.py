"""What a shipper read in a segment by itself: which requests ended in it, of which model, where.

The other half of a double entry. Ingest reads the same bytes on another machine and makes events of
them; the manifest travels beside the bytes and is stored as it came. Reconciliation holds one to
the other: an event that ingest dropped, or made of nothing, is missing in one of them.

Guarantees: an id in it is the one its event must have (`parse.event_id_of`), whatever became of the
event. It knows nothing of what ingest refuses: what was set aside is in it, too.
"""

from collections.abc import Iterable
from typing import Protocol
from uuid import UUID

import msgspec

from meterplane.journal import framing
from meterplane.metering.parse import Ended, event_id_of

ID_BYTES = 16

_Listed = list[tuple[str, str, bytes]]
_decoder = msgspec.msgpack.Decoder(_Listed)


class ManifestBroken(ValueError):
    """It is not what `manifest_of` makes."""


class Opened(msgspec.Struct, frozen=True, gc=False, tag="admit", tag_field="kind"):
    """Of an ADMIT what a shipper needs."""

    request_id: UUID


class _Running(msgspec.Struct, frozen=True, gc=False, tag="checkpoint", tag_field="kind"):
    pass


class Closed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="settle", tag_field="kind"):
    """Of a SETTLE what a shipper needs."""

    request_id: UUID
    model: str
    server: str = ""
    admitted_at_ms: int
    provenance: str  # of a later version, too: it closes its request all the same
    service_tier: str = "standard"


# A quarter of what whole frames cost: a fifth of all that shipping one does.
_glance = msgspec.msgpack.Decoder(Opened | _Running | Closed).decode


def ends_in(payloads: Iterable[framing.Payload]) -> tuple[set[UUID], list[Closed]]:
    """Which requests these frames open and close. What no frame is is passed over."""
    opened: set[UUID] = set()
    closed: list[Closed] = []
    for payload in payloads:
        try:
            frame = _glance(payload.body)
        except (msgspec.MsgspecError, ValueError):
            continue
        if isinstance(frame, Opened):
            opened.add(frame.request_id)
        elif isinstance(frame, Closed):
            closed.append(frame)
    return opened, closed


class Served(Ended, Protocol):
    """A settlement that says where it was served."""

    @property
    def model(self) -> str: ...
    @property
    def server(self) -> str: ...


def manifest_of(settles: Iterable[Served]) -> bytes:
    """The manifest of a segment's settlements, as `SegmentMessage.manifest` says."""
    listed: dict[tuple[str, str], list[bytes]] = {}
    for settle in settles:
        ids = listed.setdefault((settle.model, settle.server), [])
        ids.append(event_id_of(settle).bytes)
    return msgspec.msgpack.encode(
        [(model, server, b"".join(ids)) for (model, server), ids in listed.items()]
    )


def read_manifest(manifest: bytes) -> Iterable[tuple[str, str, list[UUID]]]:
    """Model, server and the ids of the events it must have become. Raises `ManifestBroken`."""
    try:
        listed = _decoder.decode(manifest)
    except msgspec.MsgspecError as problem:
        raise ManifestBroken(str(problem)) from None
    for model, server, ids in listed:
        if len(ids) % ID_BYTES:
            raise ManifestBroken("an id in it is cut")
        yield (
            model,
            server,
            [UUID(bytes=ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)],
        )
