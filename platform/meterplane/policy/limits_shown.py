"""The limits of an organisation as people read them: what holds where, who says so, what is left.

Of spend limits and day quotas it is told what was used in their window: see `limit_usage`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from meterplane.contracts import policy as contract
from meterplane.contracts import windows
from meterplane.kernel import clock
from meterplane.policy.effective_limits import Scopes, effective_limits
from meterplane.policy.limit_usage import LimitUsage
from tenants.models import ApiKey, Limit, Organisation, Project, SetBy

NOBODY = UUID(int=0)  # the scope of levels that are not asked about

# Whose word a limit is: the plan's, the operator's instead of it, the organisation's own.
Source = Literal["plan", "override", "organisation"]


@dataclass(frozen=True, slots=True)
class ShownLimit:
    """One limit of one scope. Of an operator's and an organisation's own of one name both hold.

    `limit_id` and `changed_at` are the row's, where one says it. `amount` None: the operator lifts
    the plan's limit. `raised_to` and `raised_until` are there while the raise lasts. `used` is of
    spend limits, in nano, and of day quotas; `resets_at` of calendar windows.
    """

    level: contract.LimitLevel
    scope_id: UUID
    scope_name: str
    kind: contract.LimitKind
    window: contract.LimitWindow
    model: str
    amount: int | None
    burst: int | None
    mode: contract.LimitMode
    source: Source
    limit_id: UUID | None = None
    changed_at: datetime | None = None
    raised_to: int | None = None
    raised_until: datetime | None = None
    used: int | None = None
    resets_at: datetime | None = None

    @property
    def amount_now(self) -> int | None:
        """What holds at this moment."""
        return self.amount if self.raised_to is None else self.raised_to

    @property
    def spent_nano(self) -> int | None:
        """What was spent of a spend limit."""
        return self.used if self.kind == "spend" else None

    @property
    def left_nano(self) -> int | None:
        """What may still be spent, none below nought; None where nothing bounds it."""
        if self.spent_nano is None or self.amount_now is None:
            return None
        return max(0, self.amount_now - self.spent_nano)

    @property
    def looseness(self) -> tuple[bool, bool, int]:
        """Of two limits of one name the one with less of it is what holds."""
        amount = self.amount_now
        return amount is None, self.mode == "notify", amount or 0


@dataclass(frozen=True, slots=True)
class ShownScope:
    """An organisation, a project or a key that is not revoked, and the limits that are its own."""

    level: Literal["organisation", "project", "key"]
    scope_id: UUID
    name: str
    project_id: UUID | None
    limits: list[ShownLimit]


def shown_limits(organisation: Organisation, at: datetime | None = None) -> list[ShownScope]:
    """The organisation, then each project with its keys after it. Needs its door.

    Keys that follow one another in a rotation share their limits: the newest of them is named.
    Windows and raises are those that hold now, or `at` another instant.
    """
    now = at or clock.now()
    rows = list(Limit.objects.all())
    said = {_identity(row): row for row in rows}
    usage = LimitUsage(now, {key.id: key.limits_scope_id or key.id for key in ApiKey.objects.all()})
    plan = organisation.plan.limits if organisation.plan else []
    by_operator = [row for row in rows if row.set_by == SetBy.OPERATOR]
    by_itself = [row for row in rows if row.set_by == SetBy.ORGANISATION]
    shown = []
    for scope in _scopes(organisation):
        levels = ("key", "key_model") if scope.level == "key" else (scope.level,)
        only = _only(organisation, scope)
        limits = [
            _shown(limit, said.get((set_by, *_name(limit))), scope.name, usage, now)
            for set_by, held in (
                (SetBy.OPERATOR, effective_limits(plan, by_operator, only)),
                (SetBy.ORGANISATION, effective_limits([], by_itself, only)),
            )
            for limit in held
            if limit.level in levels
        ]
        lifted = [
            _lifted(row, scope.name)
            for row in by_operator
            if row.amount is None and row.scope_id == scope.scope_id and row.level in levels
        ]
        shown.append(
            ShownScope(scope.level, scope.scope_id, scope.name, scope.project_id, limits + lifted)
        )
    return shown


def _scopes(organisation: Organisation) -> Iterator[ShownScope]:
    yield ShownScope("organisation", organisation.id, organisation.name, None, [])
    keys: dict[UUID, list[ApiKey]] = {}
    newest_first = ApiKey.objects.filter(status=ApiKey.Status.ACTIVE).order_by("-created_at", "-id")
    named: set[UUID] = set()
    for key in newest_first:
        scope_id = key.limits_scope_id or key.id
        if scope_id not in named:
            named.add(scope_id)
            keys.setdefault(key.project_id, []).append(key)
    for project in Project.objects.order_by("name", "id"):
        yield ShownScope("project", project.id, project.name, project.id, [])
        for key in keys.get(project.id, []):
            scope_id = key.limits_scope_id or key.id
            yield ShownScope("key", scope_id, key.name, project.id, [])


def _only(organisation: Organisation, scope: ShownScope) -> Scopes:
    """The scopes of a level; what holds at the others is told of them."""
    key = scope.scope_id if scope.level == "key" else NOBODY
    project = scope.scope_id if scope.level == "project" else NOBODY
    return Scopes(organisation.id, project, key, key)


Identity = tuple[str, str, UUID, str, str, str]


def _identity(row: Limit) -> Identity:
    return row.set_by, *_name(row)


def _name(limit: Limit | contract.Limit) -> tuple[str, UUID, str, str, str]:
    return limit.level, limit.scope_id, limit.kind, limit.window, limit.model


def _shown(
    limit: contract.Limit, row: Limit | None, scope_name: str, usage: LimitUsage, now: datetime
) -> ShownLimit:
    raised = limit.amount_at(clock.to_ms(now)) != limit.amount
    return ShownLimit(
        level=limit.level,
        scope_id=limit.scope_id,
        scope_name=scope_name,
        kind=limit.kind,
        window=limit.window,
        model=limit.model,
        amount=limit.amount,
        burst=limit.burst,
        mode=limit.mode,
        source=_source(row),
        limit_id=None if row is None else row.id,
        changed_at=None if row is None else row.changed_at,
        raised_to=limit.raised_to if raised else None,
        raised_until=row.raised_until if raised and row is not None else None,
        used=usage.of(limit),
        resets_at=windows.ends(limit.window, now),
    )


def _source(row: Limit | None) -> Source:
    if row is None:
        return "plan"
    return "organisation" if row.set_by == SetBy.ORGANISATION else "override"


def _lifted(row: Limit, scope_name: str) -> ShownLimit:
    return ShownLimit(
        level=msgspec.convert(row.level, contract.LimitLevel),
        scope_id=row.scope_id,
        scope_name=scope_name,
        kind=msgspec.convert(row.kind, contract.LimitKind),
        window=msgspec.convert(row.window, contract.LimitWindow),
        model=row.model,
        amount=None,
        burst=None,
        mode=msgspec.convert(row.mode, contract.LimitMode),
        source="override",
        limit_id=row.id,
        changed_at=row.changed_at,
    )
