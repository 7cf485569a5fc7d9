"""Reads of tenants. Each says which door it needs."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from meterplane.kernel import clock
from tenants.models import (
    ApiKey,
    BalanceTopUp,
    LeakReport,
    Limit,
    Member,
    Organisation,
    Project,
    SetBy,
)
from tenants.scoping import system_scope


@dataclass(frozen=True, slots=True)
class Membership:
    """One user's place in one organisation."""

    tenant_id: UUID
    slug: str
    name: str
    role: str


def memberships_of(user_id: int) -> list[Membership]:
    """The organisations a signed-in user belongs to, by name. Opens the system's door itself."""
    with system_scope("sign-in: which organisations does this user belong to"):
        rows = Member.objects.filter(user_id=user_id).select_related("tenant")
        return [
            Membership(row.tenant_id, row.tenant.slug, row.tenant.name, row.role)
            for row in rows.order_by("tenant__name", "tenant_id")
        ]


def organisation_by_slug(slug: str) -> Organisation | None:
    """Needs the system's door."""
    return Organisation.objects.select_related("plan").filter(slug=slug).first()


def organisation() -> Organisation:
    """The organisation whose door is open."""
    return Organisation.objects.get()


def monthly_budget_nano(of: Organisation) -> int | None:
    """What an organisation may spend in a month, in nano of its currency; None: without limit.

    Needs its door, or the system's.
    """
    found: dict[str, int | None] = {}
    for limit in of.plan.limits if of.plan else []:
        if (limit["level"], limit["kind"], limit["window"]) == ("organisation", "spend", "month"):
            found[SetBy.OPERATOR] = int(limit["amount"])
    now = clock.now()
    for row in Limit.objects.filter(
        tenant_id=of.id, level="organisation", kind="spend", window="month"
    ):
        raised = row.raised_until is not None and now < row.raised_until
        found[row.set_by] = row.raised_to if raised else row.amount
    return min((amount for amount in found.values() if amount is not None), default=None)


def balance_floor_nano(of: Organisation, paid_in_nano: int) -> int:
    """Below which prepaid balance somebody is told: what the organisation chose, else a tenth of
    its last payment, or of all that was paid in where no payment is known. Needs its door.
    """
    if of.balance_alert_nano is not None:
        return of.balance_alert_nano
    last = BalanceTopUp.objects.values_list("amount_nano", flat=True).first()
    return int(paid_in_nano if last is None else last) // 10


def paid_in_nano(of: Organisation) -> int:
    """All that was ever paid into the prepaid balance. Needs its door, or the system's."""
    row = Limit.objects.filter(tenant_id=of.id, kind="spend", window="prepaid").first()
    return row.amount or 0 if row else 0


def list_keys() -> "QuerySet[ApiKey]":
    """Keys of the open door, newest first, with their projects and who takes their place."""
    keys: QuerySet[ApiKey] = ApiKey.objects.select_related("project", "replaced_by")
    return keys.order_by("-created_at", "-id")


def list_leaks() -> "QuerySet[LeakReport]":
    """Leaks of the open door that nobody has dismissed, newest first, with their keys."""
    leaks: QuerySet[LeakReport] = LeakReport.objects.select_related("key")
    return leaks.filter(dismissed_at__isnull=True).order_by("-reported_at", "-id")


def list_projects() -> "QuerySet[Project]":
    """Projects of the open door, by name."""
    projects: QuerySet[Project] = Project.objects.order_by("name", "id")
    return projects
