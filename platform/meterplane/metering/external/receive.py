"""Take in events that other systems tell, each once for ever.

Guarantees: (organisation, source, id) is one row however often, however late, in whatever order and
by however many at the same time it is sent, also twice in one batch. The row itself is the only
marker, so it is there if and only if the usage is. The same content is answered with the receipt of
the first; other content is a conflict that names what differs, and changes nothing. Content is what
is counted by: type, time as it was sent, project, data and backfill. Other attributes (a trace, a
schema) are kept of the first and not compared: a retry may carry its own.

One bad event holds up no other. What is answered as accepted is committed. A batch is one INSERT,
ordered by key: two that meet wait for each other in one direction only.

Policy is asked of new events only: an event that was accepted is a duplicate for ever, also once it
is too old to be accepted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.db import connection
from django.db.models import Q

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import ensure
from meterplane.metering.external.backfills import Frame, shared_frames
from meterplane.metering.external.policy import check_in_window, check_not_ahead
from meterplane.metering.external.receipts import StoredEvent, differences, stored_by_key
from meterplane.metering.external.shape import SentEvent, content_digest, digest_of
from tenants.models import Organisation, Project
from tenants.scoping import system_scope

BATCH_EVENTS_MAX = 1000
_INDEX_BITS = 12  # of a UUIDv7 behind its millisecond; 4,096 is more than a batch has

Status = Literal["accepted", "duplicate", "conflict", "invalid"]
Key = tuple[UUID, str, str]  # organisation, source, id

_INSERT = """
INSERT INTO external_event (id, tenant_id, project_id, source, event_id, type, event_at,
       time_was_sent, data, attributes, backfill_id, digest, content_digest, received_at,
       received_by)
SELECT s.id, s.tenant_id, s.project_id, s.source, s.event_id, s.type, s.event_at, s.time_was_sent,
       s.data::jsonb, s.attributes::jsonb, s.backfill_id, s.digest, s.content_digest,
       %s, %s
  FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[],
              %s::timestamptz[], %s::boolean[], %s::text[], %s::text[], %s::uuid[], %s::bytea[],
              %s::bytea[])
       AS s (id, tenant_id, project_id, source, event_id, type, event_at, time_was_sent, data,
             attributes, backfill_id, digest, content_digest)
 ORDER BY s.tenant_id, s.source, s.event_id
ON CONFLICT (tenant_id, source, event_id) DO NOTHING
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event.

    `receipt` is of the event that is stored under its key; None if it is invalid. `problem` is why
    it was not accepted; `differs` names what a conflict differs in.
    """

    status: Status
    receipt: StoredEvent | None = None
    problem: CallerError | None = None
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An event whose organisation and project are known, and the id it gets if it is new."""

    id: UUID
    tenant_id: UUID
    project_id: UUID
    sent: SentEvent
    digest: bytes

    @property
    def key(self) -> Key:
        return self.tenant_id, self.sent.source, self.sent.event_id


def receive(events: Sequence[SentEvent | CallerError], *, received_by: str) -> list[Outcome]:
    """Take in events, or the reasons why they are none; what became of each, in their order."""
    ensure(len(events) <= BATCH_EVENTS_MAX, "a batch is bounded before it is read")
    now = clock.now()
    with system_scope("an operator's program reports usage of many organisations"):
        found = _candidates(events)
        candidates = [each for each in found if isinstance(each, _Candidate)]
        stored = stored_by_key({each.key for each in candidates})
        refusals = _insert_new(candidates, stored, now, received_by)
        missing = {each.key for each in candidates if each.id not in refusals} - stored.keys()
        stored |= stored_by_key(missing)
        return [
            Outcome("invalid", problem=each)
            if isinstance(each, CallerError)
            else _outcome(each, stored.get(each.key), refusals.get(each.id))
            for each in found
        ]


def _outcome(
    candidate: _Candidate, stored: StoredEvent | None, refusal: CallerError | None
) -> Outcome:
    if stored is None:
        ensure(refusal, "an event that is not stored was refused")
        return Outcome("invalid", problem=refusal)
    if stored.id == candidate.id:
        return Outcome("accepted", stored)
    if stored.digest == candidate.digest:
        return Outcome("duplicate", stored)
    differs = differences(candidate.sent, candidate.project_id, stored)
    problem = CallerError(
        "event_conflict",
        f"This organisation has an event {stored.event_id[:80]!r} of this source with other"
        f" content: {', '.join(differs)[:400]}. Nothing was changed; to correct it, amend it.",
        status=409,
        field="id",
    )
    return Outcome("conflict", stored, problem, differs)


def _candidates(events: Sequence[SentEvent | CallerError]) -> list[_Candidate | CallerError]:
    sent = [each for each in events if isinstance(each, SentEvent)]
    tenants = _organisations({each.organisation for each in sent})
    projects = _projects(tenants.values(), {each.project for each in sent})
    found: list[_Candidate | CallerError] = []
    for index, each in enumerate(events):
        if isinstance(each, CallerError):
            found.append(each)
            continue
        tenant_id = tenants.get(each.organisation) or tenants.get(str(_as_id(each.organisation)))
        project_id = projects.get((tenant_id, each.project)) if tenant_id else None
        project_id = project_id or projects.get((tenant_id, str(_as_id(each.project))))
        if tenant_id is None:
            found.append(_unknown("subject", "organisation", each.organisation))
        elif project_id is None:
            found.append(_unknown("project", "project", each.project))
        else:
            found.append(
                _Candidate(
                    _receipt_id(index), tenant_id, project_id, each, _digest(each, project_id)
                )
            )
    return found


def _insert_new(
    candidates: Iterable[_Candidate],
    stored: dict[Key, StoredEvent],
    now: datetime,
    received_by: str,
) -> dict[UUID, CallerError]:
    """Insert what is new and allowed; why each other new one is not, by its id."""
    new = [each for each in candidates if each.key not in stored]
    frames = shared_frames(
        {(each.tenant_id, each.sent.backfill_id) for each in new if each.sent.backfill_id}
    )
    refusals: dict[UUID, CallerError] = {}
    first: dict[Key, _Candidate] = {}
    for each in new:
        timed = replace(each, sent=replace(each.sent, at=each.sent.at or now))
        try:
            _check_new(timed, frames)
        except CallerError as refusal:
            refusals[each.id] = refusal
        else:
            first.setdefault(each.key, each)
    if first:
        rows = [_row(each, now) for each in first.values()]
        with connection.cursor() as db:
            db.execute(_INSERT, [now, received_by, *map(list, zip(*rows, strict=True))])
    return refusals


def _check_new(candidate: _Candidate, frames: dict[UUID, Frame]) -> None:
    sent = candidate.sent
    at = sent.at
    ensure(at is not None, "an event without a time has the one it came at")
    check_not_ahead(at)  # type: ignore[arg-type]
    if sent.backfill_id is None:
        check_in_window(at, status=422)  # type: ignore[arg-type]
        return
    frame = frames.get(sent.backfill_id)
    if frame is None or frame.tenant_id != candidate.tenant_id:
        raise _unknown("backfill", "backfill", str(sent.backfill_id))
    frame.check_takes(sent.type, at)  # type: ignore[arg-type]


def _row(candidate: _Candidate, now: datetime) -> tuple[Any, ...]:
    sent, at = candidate.sent, candidate.sent.at or now
    return (
        candidate.id, candidate.tenant_id, candidate.project_id, sent.source, sent.event_id,
        sent.type, at, sent.at is not None, sent.data, sent.attributes, sent.backfill_id,
        candidate.digest, content_digest(at, sent.data),
    )  # fmt: skip


def _digest(sent: SentEvent, project_id: UUID) -> bytes:
    return digest_of(
        type=sent.type,
        time=sent.at.isoformat() if sent.at else None,
        project=str(project_id),
        data=sent.data,
        backfill=str(sent.backfill_id) if sent.backfill_id else None,
    )


def _receipt_id(index: int) -> UUID:
    """A UUIDv7 that sorts by millisecond, then by place in its batch: the order of receipt."""
    below = 64 + _INDEX_BITS
    minted = uuid7().int
    return UUID(int=minted >> below << below | index << 64 | minted & (1 << 64) - 1)


def _organisations(names: set[str]) -> dict[str, UUID]:
    """By slug, and by the text of its id."""
    ids = _uuids(names)
    rows = Organisation.objects.filter(Q(slug__in=names) | Q(id__in=ids))
    found: dict[str, UUID] = {}
    for tenant_id, slug in rows.values_list("id", "slug"):
        found |= {slug: tenant_id, str(tenant_id): tenant_id}
    return found


def _projects(tenant_ids: Iterable[UUID], names: set[str]) -> dict[tuple[UUID | None, str], UUID]:
    ids = _uuids(names)
    rows = Project.objects.filter(Q(slug__in=names) | Q(id__in=ids), tenant_id__in=set(tenant_ids))
    found: dict[tuple[UUID | None, str], UUID] = {}
    for tenant_id, slug, project_id in rows.values_list("tenant_id", "slug", "id"):
        found |= {(tenant_id, slug): project_id, (tenant_id, str(project_id)): project_id}
    return found


def _as_id(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _uuids(names: set[str]) -> list[UUID]:
    return [found for found in map(_as_id, names) if found]


def _unknown(field: str, what: str, name: str) -> CallerError:
    return CallerError(
        "event_invalid", f"There is no {what} {name[:64]!r}.", status=422, field=field
    )
