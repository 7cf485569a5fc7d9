"""Events as they are stored, and what another one of the same key differs in.

Every function needs the system's door: the control API answers for all organisations.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from meterplane.metering.external.exact_json import canonical, decode
from meterplane.metering.external.shape import SentEvent
from meterplane.metering.reading import read


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was received; overlays do not show in it. `data` is canonical JSON."""

    id: UUID
    tenant_id: UUID
    organisation: str
    project_id: UUID
    project: str
    source: str
    event_id: str
    type: str
    event_at: datetime
    time_was_sent: bool
    data: str
    attributes: str
    backfill_id: UUID | None
    digest: bytes
    content_digest: bytes
    received_at: datetime
    received_by: str


# The data as text: numbers must not pass through a float on their way.
EVENT_COLUMNS = """
       e.id, e.tenant_id, t.slug, e.project_id, p.slug, e.source, e.event_id, e.type, e.event_at,
       e.time_was_sent, e.data::text, e.attributes::text, e.backfill_id, e.digest,
       e.content_digest, e.received_at, e.received_by
"""
EVENT_SOURCE = """
  external_event e
  JOIN organisation t ON t.id = e.tenant_id
  JOIN project p ON p.tenant_id = e.tenant_id AND p.id = e.project_id
"""
_BY_KEY = f"""
SELECT {EVENT_COLUMNS}
  FROM unnest(%(tenants)s::uuid[], %(sources)s::text[], %(ids)s::text[])
       AS k (tenant_id, source, event_id)
  JOIN {EVENT_SOURCE} ON (e.tenant_id, e.source, e.event_id) = (k.tenant_id, k.source, k.event_id)
"""  # noqa: S608  the columns are the constants above


def stored_by_key(
    keys: Iterable[tuple[UUID, str, str]],
) -> dict[tuple[UUID, str, str], StoredEvent]:
    """Of (organisation, source, id) those that are there."""
    listed = list(keys)
    if not listed:
        return {}
    tenants, sources, ids = (list(each) for each in zip(*listed, strict=True))
    rows = read(_BY_KEY, {"tenants": tenants, "sources": sources, "ids": ids})
    found = [stored_event(row) for row in rows]
    return {(each.tenant_id, each.source, each.event_id): each for each in found}


def stored_event(row: tuple[Any, ...]) -> StoredEvent:
    """The event of a row of `EVENT_COLUMNS`."""
    values = dict(zip(StoredEvent.__slots__, row, strict=True))
    values["data"] = canonical(decode(values["data"].encode()))
    values["attributes"] = canonical(decode(values["attributes"].encode()))
    values["digest"], values["content_digest"] = bytes(row[13]), bytes(row[14])
    for name in ("event_at", "received_at"):
        values[name] = values[name].astimezone(UTC)
    return StoredEvent(**values)


def differences(sent: SentEvent, project_id: UUID, stored: StoredEvent) -> tuple[str, ...]:
    """The attributes two events of one key differ in; of data the names that differ."""
    pairs: dict[str, tuple[Any, Any]] = {
        "type": (sent.type, stored.type),
        "time": (sent.at, stored.event_at if stored.time_was_sent else None),
        "project": (project_id, stored.project_id),
        "backfill": (sent.backfill_id, stored.backfill_id),
    }
    found = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    ours, theirs = decode(sent.data.encode()), decode(stored.data.encode())
    nowhere = object()
    found += [
        f"data.{name}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name, nowhere) != theirs.get(name, nowhere)
    ]
    return tuple(found)
