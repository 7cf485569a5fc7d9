"""The restrictions of an organisation as people read them: what is said where, and by whom.

All that is shown of a key's plan, organisation, project and itself binds it together.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from meterplane.policy.effective_limits import unreplaced
from meterplane.policy.limits_shown import Source
from tenants.models import ApiKey, Organisation, Project, Restriction, SetBy

Level = Literal["organisation", "project", "key"]


@dataclass(frozen=True, slots=True)
class ShownRestriction:
    """What is said at one scope by one of the plan, the operator and the organisation itself.

    None: nothing is said of it. `changed_at` is not known of a plan's.
    """

    level: Level
    scope_id: UUID
    name: str
    source: Source
    models: list[str] | None = None
    surfaces: list[str] | None = None
    ip_ranges: list[str] | None = None
    request_tokens_max: int | None = None
    changed_at: datetime | None = None


def shown_restrictions(organisation: Organisation) -> list[ShownRestriction]:
    """The plan's first, then the organisation's, its projects' and its active keys'. Needs its
    door."""
    rows = list(Restriction.objects.order_by("set_by"))
    plan = unreplaced(organisation.plan.restrictions if organisation.plan else {}, rows)
    shown = [_plans(organisation, plan)] if plan else []
    names: dict[tuple[str, UUID], str] = {("organisation", organisation.id): organisation.name}
    names |= {("project", each.id): each.name for each in Project.objects.order_by("name", "id")}
    keys = ApiKey.objects.filter(status=ApiKey.Status.ACTIVE).order_by("-created_at", "-id")
    names |= {("key", each.id): each.name for each in keys}
    order = {scope: place for place, scope in enumerate(names)}
    here = [row for row in rows if (row.level, row.scope_id) in names]
    here.sort(key=lambda row: order[row.level, row.scope_id])
    return shown + [_said(row, names[row.level, row.scope_id]) for row in here]


def _plans(organisation: Organisation, plan: dict[str, Any]) -> ShownRestriction:
    return ShownRestriction("organisation", organisation.id, organisation.name, "plan", **plan)


def _said(row: Restriction, name: str) -> ShownRestriction:
    return ShownRestriction(
        level=msgspec.convert(row.level, Level),
        scope_id=row.scope_id,
        name=name,
        source="organisation" if row.set_by == SetBy.ORGANISATION else "override",
        models=row.allowed_models,
        surfaces=row.surfaces,
        ip_ranges=row.ip_ranges,
        request_tokens_max=row.request_tokens_max,
        changed_at=row.changed_at,
    )
