"""What a shipper read in a segment by itself: which requests ended in it, of which model, where.

The other half of a double entry. Ingest reads the same bytes on another machine and makes events of
them; the manifest travels beside the bytes and is stored as it came. Reconciliation holds one to
the other: an event that ingest dropped, or made of nothing, is missing in one of them.

Guarantees: an id in it is the one its event must have (`parse.of_its_own`), whatever became of the
event. It knows nothing of what ingest refuses: what was set aside is in it, too.
"""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from meterplane.contracts.usage import Settle
from meterplane.metering.parse import of_its_own

ID_BYTES = 16

_Listed = list[tuple[str, str, bytes]]
_decoder = msgspec.msgpack.Decoder(_Listed)


class ManifestBroken(ValueError):
    """It is not what `manifest_of` makes."""


def manifest_of(settles: Iterable[Settle]) -> bytes:
    """The manifest of a segment's settlements, as `SegmentMessage.manifest` says."""
    listed: dict[tuple[str, str], list[bytes]] = {}
    for settle in settles:
        ids = listed.setdefault((settle.model, settle.server), [])
        ids.append(of_its_own(settle).request_id.bytes)
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
