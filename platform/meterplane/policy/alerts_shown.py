"""Alerts as people read them: the newest first, with the name of what was limited.

Needs the organisation's door.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from meterplane.policy.models import Alert
from tenants.models import ApiKey, Organisation, Project

PAGE_MAX = 200  # and one more, which says that there is another page


@dataclass(frozen=True, slots=True)
class ShownAlert:
    """One alert; fields as of `models.Alert`. `scope_name` is empty where it is gone."""

    id: UUID
    level: str
    scope_id: UUID
    scope_name: str
    model: str
    kind: str
    window: str
    mode: str
    label: str
    threshold: str
    used: int | None
    amount: int | None
    hits: int
    raised_at: datetime
    delivered_at: datetime | None

    @property
    def left(self) -> int | None:
        """What was left when it was raised, none below nought."""
        if self.used is None or self.amount is None:
            return None
        return max(0, self.amount - self.used)


_COLUMNS = [name for name in ShownAlert.__slots__ if name != "scope_name"]


def list_alerts(
    limit: int, before: UUID | None = None, threshold: str | None = None
) -> list[ShownAlert]:
    """At most `limit`, and `PAGE_MAX` and one; for the next page, `before` is the last id shown."""
    rows = Alert.objects.order_by("-id")
    if before is not None:
        rows = rows.filter(id__lt=before)
    if threshold is not None:
        rows = rows.filter(threshold=threshold)
    found = list(rows[: max(1, min(limit, PAGE_MAX + 1))].values(*_COLUMNS))
    names = _names({row["scope_id"] for row in found})
    return [ShownAlert(scope_name=names.get(row["scope_id"], ""), **row) for row in found]


def _names(scope_ids: set[UUID]) -> dict[UUID, str]:
    """Of keys that followed one another, the newest names them all."""
    names: dict[UUID, str] = {}
    for key in ApiKey.objects.filter(limits_scope_id__in=scope_ids).order_by("created_at", "id"):
        names[key.limits_scope_id] = key.name
    for model in (ApiKey, Project, Organisation):
        for scope_id, name in model.objects.filter(id__in=scope_ids).values_list("id", "name"):
            names.setdefault(scope_id, name)
    return names
