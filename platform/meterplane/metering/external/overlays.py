"""Correct an event that was received: amend it, or let it count no longer.

The event stays as it was sent, and answers for its id as before. What holds instead is the newest
overlay: a row that is never changed, says who made it, when and why, and has the digests of the
content before and after. Overlays of an organisation are made one after another (`changing`).

Said again, the same correction is answered with what holds and adds no overlay, so that a program
that did not hear the answer may ask again.

A correction may reach into a billing period that is closed: its invoice does not change. What a
meter counts is computed from what holds, so the difference is late usage of that period, as
decision 0005 bills it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.backfills import changing, checked_reason
from meterplane.metering.external.exact_json import canonical, decode
from meterplane.metering.external.policy import check_allowed, check_in_window, check_not_ahead
from meterplane.metering.external.shape import content_digest
from meterplane.metering.reading import read
from tenants.scoping import system_scope

_SCOPE = "an operator's program corrects usage"
OVERLAYS_MAX = 100  # of one event: more are a program that runs in circles

_STATE = """
SELECT e.tenant_id, COALESCE(o.event_at, e.event_at), COALESCE(o.data, e.data)::text,
       COALESCE(o.counts, true) AND COALESCE(b.state, 'closed') <> 'reverted',
       COALESCE(o.number, 0), COALESCE(o.digest_after, e.content_digest)
  FROM external_event e
  LEFT JOIN backfill b ON b.tenant_id = e.tenant_id AND b.id = e.backfill_id
  LEFT JOIN LATERAL (
    SELECT * FROM event_overlay o WHERE o.tenant_id = e.tenant_id AND o.receipt_id = e.id
     ORDER BY o.number DESC LIMIT 1) o ON true
 WHERE e.id = %(id)s
"""
_ADD = """
INSERT INTO event_overlay (tenant_id, receipt_id, number, kind, event_at, data, counts, reason,
       made_by, made_at, digest_before, digest_after)
VALUES (%(tenant_id)s, %(id)s, %(number)s, %(kind)s, %(at)s, %(data)s::jsonb, %(counts)s,
        %(reason)s, %(by)s, %(now)s, %(before)s, %(after)s)
"""


@dataclass(frozen=True, slots=True)
class _State:
    """What holds of an event."""

    tenant_id: UUID
    at: datetime
    data: str
    counts: bool
    number: int
    digest: bytes


def amend(receipt_id: UUID, *, at: datetime | None, data: str | None, reason: str, by: str) -> None:
    """Let another time, other data, or both hold instead; None leaves it as it is.

    `data` is canonical (`shape.read_data`). Raises `CallerError` 404; 403 and 409 where the
    installation does not let it be changed; 409 `event_deprecated` where it no longer counts.
    """
    check_allowed("amend")
    reason = checked_reason(reason)
    if at is None and data is None:
        raise CallerError("nothing_amended", "Give a time, data, or both.", field="data")
    if at is not None:
        check_not_ahead(at)
        check_in_window(at, status=409)
    with system_scope(_SCOPE):
        state = _changing(receipt_id)
        if not state.counts:
            raise CallerError(
                "event_deprecated",
                "This event no longer counts, so there is nothing to amend; send another one.",
                status=409,
            )
        new_at, new_data = at or state.at, data or state.data
        digest = content_digest(new_at, new_data)
        if digest != state.digest:
            check_in_window(state.at, status=409, field="id")
            _add(receipt_id, state, "amend", new_at, new_data, reason, by, digest)


def deprecate(receipt_id: UUID, *, reason: str, by: str) -> None:
    """Let an event count no longer. Raises `CallerError` as `amend` does."""
    check_allowed("deprecate")
    reason = checked_reason(reason)
    with system_scope(_SCOPE):
        state = _changing(receipt_id)
        if state.counts:
            check_in_window(state.at, status=409, field="id")
            _add(receipt_id, state, "deprecate", state.at, state.data, reason, by, None)


def _add(
    receipt_id: UUID,
    state: _State,
    kind: str,
    at: datetime,
    data: str,
    reason: str,
    by: str,
    digest: bytes | None,
) -> None:
    if state.number >= OVERLAYS_MAX:
        raise CallerError(
            "too_many_overlays", f"This event was corrected {OVERLAYS_MAX} times.", status=409
        )
    values: dict[str, Any] = {
        "tenant_id": state.tenant_id, "id": receipt_id, "number": state.number + 1, "kind": kind,
        "at": at, "data": data, "counts": digest is not None, "reason": reason, "by": by,
        "now": clock.now(), "before": state.digest, "after": digest,
    }  # fmt: skip
    with connection.cursor() as db:
        db.execute(_ADD, values)


def _changing(receipt_id: UUID) -> _State:
    changing(_state(receipt_id).tenant_id)
    return _state(receipt_id)  # as it is now that nobody else changes it


def _state(receipt_id: UUID) -> _State:
    rows = read(_STATE, {"id": receipt_id})
    if not rows:
        raise CallerError("event_not_found", "There is no event with this receipt.", status=404)
    tenant_id, at, data, counts, number, digest = rows[0]
    data = canonical(decode(data.encode()))
    return _State(tenant_id, at.astimezone(UTC), data, counts, number, bytes(digest))
