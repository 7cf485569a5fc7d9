"""Backfills: told again what an organisation used of one type in one frame of time, at once.

Events that are sent with the id of an open backfill count for nothing until it is closed; then they
do, and everything else of the type in the frame no longer does, in one transaction. What it
replaced is still there, each event with an overlay that names the backfill; `revert` brings it
back. Who closes or reverts holds the organisation's lock (`changing`), and who sends to a backfill
shares it: none arrives in a backfill that was closed meanwhile.

A backfill that a later one of the same type has overlapped is reverted after that one: in another
order both its own and the older events would count.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.metering.external.policy import check_allowed, check_in_window, check_not_ahead
from meterplane.metering.external.shape import OWN_TYPES, TYPE_CHARS_MAX
from meterplane.metering.reading import read
from tenants.scoping import system_scope

REASON_CHARS_MAX = 500
REPLACED_MAX = 1_000_000  # events, in one statement: a frame with more is closed in parts
_SCOPE = "an operator's program corrects usage"

_LOCK = "SELECT pg_advisory_xact_lock{}(hashtextextended('external_event.' || %s::text, 0))"
_EXISTING = """
  FROM effective_event v
 WHERE v.tenant_id = %(tenant_id)s AND v.type = %(type)s AND v.event_at >= %(starts_at)s
   AND v.event_at < %(ends_at)s AND v.backfill_id IS DISTINCT FROM %(id)s
"""
_REPLACE = f"""
INSERT INTO event_overlay (tenant_id, receipt_id, number, kind, event_at, data, counts, reason,
       made_by, made_at, digest_before, backfill_id)
SELECT v.tenant_id, v.id, v.overlay + 1, 'replace', v.event_at, v.data, false, %(reason)s, %(by)s,
       %(now)s, v.content_digest, %(id)s
{_EXISTING}
"""
_RESTORE = """
INSERT INTO event_overlay (tenant_id, receipt_id, number, kind, event_at, data, counts, reason,
       made_by, made_at, digest_after, backfill_id)
SELECT o.tenant_id, o.receipt_id, o.number + 1, 'restore', o.event_at, o.data, true, %(reason)s,
       %(by)s, %(now)s, o.digest_before, %(id)s
  FROM event_overlay o
 WHERE o.tenant_id = %(tenant_id)s AND o.backfill_id = %(id)s AND o.kind = 'replace'
"""
_OVERLAPPING = """
SELECT id FROM backfill
 WHERE tenant_id = %(tenant_id)s AND type = %(type)s AND state = 'closed' AND id <> %(id)s
   AND (closed_at, id) > (%(closed_at)s, %(id)s)
   AND starts_at < %(ends_at)s AND ends_at > %(starts_at)s
 ORDER BY closed_at DESC, id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """One backfill. `added` events count since it was closed, `replaced` no longer did."""

    id: UUID
    tenant_id: UUID
    organisation: str
    type: str
    starts_at: datetime
    ends_at: datetime
    reason: str
    state: str
    opened_by: str
    opened_at: datetime
    closed_by: str | None
    closed_at: datetime | None
    added: int | None
    replaced: int | None
    reverted_by: str | None
    reverted_at: datetime | None
    revert_reason: str | None


_SELECT = """
SELECT b.id, b.tenant_id, t.slug, b.type, b.starts_at, b.ends_at, b.reason, b.state, b.opened_by,
       b.opened_at, b.closed_by, b.closed_at, b.added, b.replaced, b.reverted_by, b.reverted_at,
       b.revert_reason
  FROM backfill b JOIN organisation t ON t.id = b.tenant_id
"""
_BY_ID = _SELECT + " WHERE b.id = %(id)s"
_LISTED = _SELECT + " WHERE b.tenant_id = %(tenant_id)s ORDER BY b.opened_at DESC LIMIT %(rows)s"


@dataclass(frozen=True, slots=True)
class Frame:
    """What an open or closed backfill takes."""

    tenant_id: UUID
    type: str
    starts_at: datetime
    ends_at: datetime
    state: str

    def check_takes(self, kind: str, at: datetime) -> None:
        """Raises `CallerError` 422 `event_invalid`."""
        problem = None
        if self.state != "open":
            problem = f"The backfill is {self.state}; open another one."
        elif kind != self.type:
            problem = f"The backfill is of {self.type}, and this event is not."
        elif not self.starts_at <= at < self.ends_at:
            problem = (
                f"time is outside the backfill's frame, {self.starts_at.isoformat()} until before"
                f" {self.ends_at.isoformat()}."
            )
        if problem:
            raise CallerError("event_invalid", problem, status=422, field="backfill")


def open_backfill(
    *, tenant_id: UUID, kind: str, starts_at: datetime, ends_at: datetime, reason: str, by: str
) -> Backfill:
    """Open a backfill of one type for [starts_at, ends_at).

    Raises `CallerError` naming the field, 403 where the installation allows none.
    """
    check_allowed("backfill")
    if not 1 <= len(kind) <= TYPE_CHARS_MAX or not kind.isprintable() or kind.startswith(OWN_TYPES):
        raise _wrong("type", f"type must be that of external events, not of {OWN_TYPES}…")
    if starts_at >= ends_at:
        raise _wrong("start", "start must be before end.")
    check_not_ahead(ends_at, "end")
    check_in_window(starts_at, status=409, field="start")
    made: dict[str, Any] = {
        "id": uuid7(), "tenant_id": tenant_id, "type": kind, "starts_at": starts_at,
        "ends_at": ends_at, "reason": checked_reason(reason), "opened_by": by,
        "opened_at": clock.now(),
    }  # fmt: skip
    with system_scope(_SCOPE), connection.cursor() as db:
        db.execute(
            "INSERT INTO backfill (id, tenant_id, type, starts_at, ends_at, reason, opened_by,"
            " opened_at) VALUES (%(id)s, %(tenant_id)s, %(type)s, %(starts_at)s, %(ends_at)s,"
            " %(reason)s, %(opened_by)s, %(opened_at)s)",
            made,
        )
        return _found(made["id"])


def close_backfill(backfill_id: UUID, *, by: str) -> Backfill:
    """Let what was sent to it count instead of everything else in its frame. Again: no change.

    Raises `CallerError` 404, 409 `backfill_reverted`, `backfill_too_large`.
    """
    check_allowed("backfill")
    with system_scope(_SCOPE), connection.cursor() as db:
        it = _changing_backfill(backfill_id)
        if it.state == "reverted":
            raise _state("backfill_reverted", "The backfill was reverted; open another one.")
        if it.state == "closed":
            return it
        frame = _frame_of(it) | {"reason": it.reason, "by": by, "now": clock.now()}
        ((existing,),) = read(f"SELECT count(*) {_EXISTING}", frame)
        if existing > REPLACED_MAX:
            raise _state(
                "backfill_too_large",
                f"{existing:,} events are in the frame, and {REPLACED_MAX:,} can be replaced at"
                " once; open several for parts of it.",
            )
        db.execute(_REPLACE, frame)
        replaced = db.rowcount
        db.execute(
            "UPDATE backfill SET state = 'closed', closed_by = %(by)s, closed_at = %(now)s,"
            " replaced = %(replaced)s, added = (SELECT count(*) FROM external_event"
            " WHERE tenant_id = %(tenant_id)s AND backfill_id = %(id)s) WHERE id = %(id)s",
            frame | {"replaced": replaced},
        )
        return _found(backfill_id)


def revert_backfill(backfill_id: UUID, *, reason: str, by: str) -> Backfill:
    """Undo a backfill: what it replaced counts again, what was sent to it no longer. Again: no
    change. One that is still open is given up.

    Raises `CallerError` 404, 409 `backfill_overlapped` where a later one must be reverted first.
    """
    check_allowed("backfill")
    reason = checked_reason(reason)
    with system_scope(_SCOPE), connection.cursor() as db:
        it = _changing_backfill(backfill_id)
        if it.state == "reverted":
            return it
        frame = _frame_of(it) | {"reason": reason, "by": by, "now": clock.now()}
        if it.state == "closed":
            later = read(_OVERLAPPING, frame | {"closed_at": it.closed_at})
            if later:
                raise _state(
                    "backfill_overlapped",
                    f"Backfill {later[0][0]}, over the same time, was closed later: revert it"
                    " first.",
                )
            db.execute(_RESTORE, frame)
        db.execute(
            "UPDATE backfill SET state = 'reverted', reverted_by = %(by)s,"
            " reverted_at = %(now)s, revert_reason = %(reason)s WHERE id = %(id)s",
            frame,
        )
        return _found(backfill_id)


def backfill_by_id(backfill_id: UUID) -> Backfill:
    """Raises `CallerError` 404 `backfill_not_found`."""
    with system_scope(_SCOPE):
        return _found(backfill_id)


def list_backfills(tenant_id: UUID, rows_max: int) -> list[Backfill]:
    """An organisation's, newest first."""
    with system_scope(_SCOPE):
        return [Backfill(*row) for row in read(_LISTED, {"tenant_id": tenant_id, "rows": rows_max})]


def shared_frames(wanted: set[tuple[UUID, UUID | None]]) -> dict[UUID, Frame]:
    """Of (organisation, backfill) what each takes, which cannot change until the transaction ends.

    Needs the system's door.
    """
    if not wanted:
        return {}
    with connection.cursor() as db:
        for tenant_id in sorted({tenant_id for tenant_id, _ in wanted}):
            db.execute(_LOCK.format("_shared"), [tenant_id])
    rows = read(
        "SELECT id, tenant_id, type, starts_at, ends_at, state FROM backfill"
        " WHERE id = ANY(%(ids)s)",
        {"ids": [backfill_id for _, backfill_id in wanted]},
    )
    return {row[0]: Frame(*row[1:]) for row in rows}


def changing(tenant_id: UUID) -> None:
    """Be the only one who changes what counts of an organisation, until the transaction ends."""
    with connection.cursor() as db:
        db.execute(_LOCK.format(""), [tenant_id])


def checked_reason(reason: str) -> str:
    """Why something is corrected: whoever reads the books later asks. Raises `CallerError`."""
    text = reason.strip()
    if not 1 <= len(text) <= REASON_CHARS_MAX or "\0" in text:
        raise _wrong("reason", f"Say why, in 1 to {REASON_CHARS_MAX} characters.")
    return text


def _changing_backfill(backfill_id: UUID) -> Backfill:
    changing(_found(backfill_id).tenant_id)
    return _found(backfill_id)  # as it is now that nobody else changes it


def _found(backfill_id: UUID) -> Backfill:
    rows = read(_BY_ID, {"id": backfill_id})
    if not rows:
        raise CallerError("backfill_not_found", "There is no such backfill.", status=404)
    return Backfill(*rows[0])


def _frame_of(it: Backfill) -> dict[str, Any]:
    return {
        "id": it.id, "tenant_id": it.tenant_id, "type": it.type, "starts_at": it.starts_at,
        "ends_at": it.ends_at,
    }  # fmt: skip


def _wrong(field: str, message: str) -> CallerError:
    return CallerError("backfill_invalid", message, field=field)


def _state(code: str, message: str) -> CallerError:
    return CallerError(code, message, status=409)
