"""External events, backfills and what holds of them, as the control API says them."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from meterplane.api.problems import problem_of
from meterplane.metering.external.backfills import Backfill
from meterplane.metering.external.queries import Overlay, ShownEvent
from meterplane.metering.external.receipts import StoredEvent
from meterplane.metering.external.receive import Outcome

RECEIPT_SCHEMA = {
    "type": "object",
    "description": "What was accepted, for good. Told again byte for byte to whoever sends the same"
    " event again. `time` is the one it was received at, where none was sent.",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "organisation": {"type": "string"},
        "project": {"type": "string"},
        "source": {"type": "string"},
        "event_id": {"type": "string"},
        "type": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "received_at": {"type": "string", "format": "date-time"},
        "digest": {"type": "string", "description": "sha256: of the content, in canonical form"},
    },
}
EVENT_SCHEMA = {
    "type": "object",
    "description": "A CloudEvent 1.0. `subject` names the organisation, by slug or id; `project`"
    " one of its projects, `default` if left out; `backfill` an open backfill.",
    "required": ["specversion", "id", "source", "type", "subject"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "maxLength": 256},
        "source": {"type": "string", "maxLength": 256},
        "type": {"type": "string", "maxLength": 128},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "project": {"type": "string"},
        "backfill": {"type": "string", "format": "uuid"},
        "data": {"type": "object", "additionalProperties": True},
    },
    "additionalProperties": True,
}
RESULTS_SCHEMA = {
    "type": "object",
    "description": "What became of each event, in the order they were sent, and how many became"
    " what.",
    "properties": {
        "accepted": {"type": "integer"},
        "duplicate": {"type": "integer"},
        "conflict": {"type": "integer"},
        "invalid": {"type": "integer"},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "id": {"type": ["string", "null"]},
                    "source": {"type": ["string", "null"]},
                    "status": {"enum": ["accepted", "duplicate", "conflict", "invalid"]},
                    "receipt": RECEIPT_SCHEMA,
                    "problem": {"type": "object", "additionalProperties": True},
                },
            },
        },
    },
}
SHOWN_SCHEMA = {
    "type": "object",
    "description": "An event as it was sent, and what holds of it: its `time` and `data` now, and"
    " whether a meter sees it (`counts`). `history` are its corrections, the first one first.",
    "properties": {
        "receipt": RECEIPT_SCHEMA,
        "sent": {"type": "object", "additionalProperties": True},
        "time": {"type": "string", "format": "date-time"},
        "data": {"type": "object", "additionalProperties": True},
        "counts": {"type": "boolean"},
        "overlays": {"type": "integer"},
        "history": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    },
}
PAGE_SCHEMA = {
    "type": "object",
    "properties": {
        "events": {"type": "array", "items": SHOWN_SCHEMA},
        "next_cursor": {"type": ["string", "null"], "format": "uuid"},
    },
}
BACKFILL_SCHEMA = {
    "type": "object",
    "description": "`added` and `replaced`: how many events began and ceased to count when it was"
    " closed.",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "organisation": {"type": "string"},
        "type": {"type": "string"},
        "start": {"type": "string", "format": "date-time"},
        "end": {"type": "string", "format": "date-time"},
        "state": {"enum": ["open", "closed", "reverted"]},
        "added": {"type": ["integer", "null"]},
        "replaced": {"type": ["integer", "null"]},
    },
    "additionalProperties": True,
}
_REASON = {"reason": {"type": "string", "maxLength": 500}}
_NAMED = {name: {"type": "string"} for name in ("organisation", "source", "id")}
REASON_SCHEMA = {"type": "object", "required": ["reason"], "properties": _REASON}
DEPRECATE_SCHEMA = REASON_SCHEMA | {"properties": _REASON | _NAMED}
AMEND_SCHEMA = REASON_SCHEMA | {
    "properties": {
        **_REASON,
        **_NAMED,
        "time": {"type": "string", "format": "date-time"},
        "data": {"type": "object", "additionalProperties": True},
    }
}
BACKFILL_IN_SCHEMA = {
    "type": "object",
    "required": ["organisation", "type", "start", "end", "reason"],
    "properties": {
        "organisation": {"type": "string"},
        "type": {"type": "string"},
        "start": {"type": "string", "format": "date-time"},
        "end": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "maxLength": 500},
    },
}


def receipt(event: StoredEvent) -> dict[str, Any]:
    """A function of the stored row alone: the same bytes whenever it is asked for."""
    return {
        "id": str(event.id),
        "organisation": event.organisation,
        "project": event.project,
        "source": event.source,
        "event_id": event.event_id,
        "type": event.type,
        "time": instant(event.event_at),
        "received_at": instant(event.received_at),
        "digest": f"sha256:{event.digest.hex()}",
    }


def conflict(outcome: Outcome) -> dict[str, Any]:
    """The problem of an event that was not accepted; of a conflict with what it differs in."""
    if outcome.problem is None:
        return {}
    problem = problem_of(outcome.problem)
    if outcome.differs:
        problem["differs"] = list(outcome.differs)
    return problem


def result(index: int, value: Any, outcome: Outcome) -> dict[str, Any]:
    """One event of a batch; `value` is what was sent, whatever it is."""
    named = value if isinstance(value, dict) else {}
    said: dict[str, Any] = {"index": index}
    for name in ("id", "source"):
        text = named.get(name)
        said[name] = text[:256] if isinstance(text, str) and text.isprintable() else None
    said["status"] = outcome.status
    if outcome.receipt is not None:
        said["receipt"] = receipt(outcome.receipt)
    if outcome.problem is not None:
        said["problem"] = conflict(outcome)
    return said


def shown(event: ShownEvent, history: list[Overlay] | None = None) -> dict[str, Any]:
    """An event, with its history where that was asked for."""
    sent = event.event
    said: dict[str, Any] = {
        "receipt": receipt(sent),
        "sent": {
            "time": instant(sent.event_at),
            "time_was_sent": sent.time_was_sent,
            "data": msgspec.Raw(sent.data.encode()),
            "attributes": msgspec.Raw(sent.attributes.encode()),
            "backfill": None if sent.backfill_id is None else str(sent.backfill_id),
            "received_by": sent.received_by,
        },
        "time": instant(event.at),
        "data": msgspec.Raw(event.data.encode()),
        "counts": event.counts,
        "overlays": event.overlays,
    }
    if history is not None:
        said["history"] = [_overlay(each) for each in history]
    return said


def backfill(it: Backfill) -> dict[str, Any]:
    """A backfill."""
    return {
        "id": str(it.id),
        "organisation": it.organisation,
        "type": it.type,
        "start": instant(it.starts_at),
        "end": instant(it.ends_at),
        "reason": it.reason,
        "state": it.state,
        "opened_by": it.opened_by,
        "opened_at": instant(it.opened_at),
        "closed_by": it.closed_by,
        "closed_at": instant(it.closed_at),
        "added": it.added,
        "replaced": it.replaced,
        "reverted_by": it.reverted_by,
        "reverted_at": instant(it.reverted_at),
        "revert_reason": it.revert_reason,
    }


def instant(at: datetime | None) -> str | None:
    """RFC 3339, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _overlay(each: Overlay) -> dict[str, Any]:
    return {
        "number": each.number,
        "kind": each.kind,
        "time": instant(each.at),
        "data": msgspec.Raw(each.data.encode()),
        "counts": each.counts,
        "reason": each.reason,
        "by": each.made_by,
        "at": instant(each.made_at),
        "digest_before": _digest(each.digest_before),
        "digest_after": _digest(each.digest_after),
        "backfill": None if each.backfill_id is None else str(each.backfill_id),
    }


def _digest(digest: bytes | None) -> str | None:
    return None if digest is None else f"sha256:{digest.hex()}"
