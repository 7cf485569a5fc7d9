"""One CloudEvent 1.0 in JSON, checked: values that were read to a `SentEvent`.

Does not know what is stored: whether the organisation exists, or the id was there before. The
bounds are those of PostgreSQL's index rows (2,704 bytes for source and id together) and of what a
meter can use.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from meterplane.kernel.errors import CallerError
from meterplane.metering.external.exact_json import NotKept, Unusable, canonical

NAME_CHARS_MAX = 256  # of source and id: 2 x 256 x 4 bytes fit into one row of the index
TYPE_CHARS_MAX = 128
DATA_BYTES_MAX = 32 * 1024
ATTRIBUTES_MAX = 16
ATTRIBUTE_CHARS_MAX = 256
OWN_TYPES = "meterplane."  # of events this product makes itself
DEFAULT_PROJECT = "default"
# What an event says itself; everything else in it is an extension that is kept and not counted by.
READ = ("specversion", "id", "source", "type", "subject", "time", "data", "project", "backfill")
_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event as its sender wrote it. `data` and `attributes` are canonical JSON.

    `at` is None where no time was sent: the time it is received at is taken then. What lies below
    a microsecond is cut off.
    """

    organisation: str
    project: str
    source: str
    event_id: str
    type: str
    at: datetime | None
    data: str
    attributes: str
    backfill_id: UUID | None


def read_event(value: Any) -> SentEvent:
    """The event. Raises `CallerError` 422 `event_invalid` naming the attribute that is wrong."""
    if isinstance(value, Unusable):
        raise refused(None, f"The event {value.reason}.")
    if not isinstance(value, dict):
        raise refused(None, "An event is a JSON object with the attributes of CloudEvents 1.0.")
    if value.get("specversion") != "1.0":
        raise refused("specversion", 'specversion must be "1.0".')
    kind = _name(value, "type", TYPE_CHARS_MAX)
    if kind.startswith(OWN_TYPES):
        raise refused("type", f"Types that begin with {OWN_TYPES} are of our own events.")
    return SentEvent(
        organisation=_name(value, "subject", 64, " It names the organisation: its slug or id."),
        project=_name({"project": DEFAULT_PROJECT} | value, "project", 64),
        source=_name(value, "source", NAME_CHARS_MAX),
        event_id=_name(value, "id", NAME_CHARS_MAX),
        type=kind,
        at=None if value.get("time") is None else read_instant(value["time"], "time"),
        data=read_data(value.get("data", {})),
        attributes=_attributes(value),
        backfill_id=_backfill(value.get("backfill")),
    )


def read_data(value: Any) -> str:
    """Data as it is stored. Raises `CallerError` 422 `event_invalid`."""
    if not isinstance(value, dict):
        reason = getattr(value, "reason", 'must be a JSON object, like {"gpu_seconds": 12.5}')
        raise refused("data", f"data {reason}.")
    try:
        data = canonical(value)
    except NotKept as wrong:
        raise refused("data", f"{wrong.where[:200]} {wrong.reason}.") from None
    if len(data.encode()) > DATA_BYTES_MAX:
        raise refused("data", f"data is larger than {DATA_BYTES_MAX // 1024} KiB.")
    return data


def read_instant(value: Any, field: str) -> datetime:
    """An RFC 3339 instant, in UTC. Raises `CallerError` 422 `event_invalid`."""
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise refused(field, f"{field} must be an instant like 2026-11-29T12:00:00Z, with its zone.")


def digest_of(**content: str | None) -> bytes:
    """SHA-256 over named texts; None is told apart from the empty text."""
    return hashlib.sha256(canonical(content).encode()).digest()


def content_digest(at: datetime, data: str) -> bytes:
    """Of what an event counts with: its time and its data."""
    return digest_of(time=at.isoformat(), data=data)


def refused(field: str | None, message: str) -> CallerError:
    """An event that can never be accepted as sent."""
    return CallerError("event_invalid", message, status=422, field=field)


def _name(value: dict[str, Any], attribute: str, chars_max: int, hint: str = "") -> str:
    text = value.get(attribute)
    if not isinstance(text, str) or not text.strip():
        raise refused(attribute, f"{attribute} is missing or empty.{hint}")
    if len(text) > chars_max:
        raise refused(attribute, f"{attribute} is longer than {chars_max} characters.{hint}")
    if not text.isprintable():  # control characters and halves of surrogate pairs
        raise refused(attribute, f"{attribute} holds a character that cannot be printed.{hint}")
    return text


def _attributes(value: dict[str, Any]) -> str:
    if "data_base64" in value:
        raise refused("data_base64", "Binary data cannot be metered; send a JSON object as data.")
    media = value.get("datacontenttype", "application/json")
    if not isinstance(media, str) or not re.match(r"[a-z]+/([^ ;]+\+)?json *(;|$)", media.lower()):
        raise refused("datacontenttype", "datacontenttype must be a JSON type.")
    kept = {name: each for name, each in value.items() if name not in READ}
    if len(kept) > ATTRIBUTES_MAX:
        raise refused(None, f"An event has at most {ATTRIBUTES_MAX} more attributes.")
    for name, each in kept.items():
        if not _EXTENSION.fullmatch(name):
            raise refused(None, f"{name[:40]!r} is no attribute's name: 1 to 20 of a-z and 0-9.")
        if not isinstance(each, str | int) or len(str(each)) > ATTRIBUTE_CHARS_MAX:
            raise refused(
                name, f"{name} must be text of at most {ATTRIBUTE_CHARS_MAX} characters, a whole"
                " number, true or false.",
            )  # fmt: skip
    try:
        return canonical(kept, "the event")
    except NotKept as wrong:
        raise refused(None, f"{wrong.where[:200]} {wrong.reason}.") from None


def _backfill(value: Any) -> UUID | None:
    if value is None:
        return None
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise refused("backfill", "backfill must be the id of an open backfill.") from None
