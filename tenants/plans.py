"""Plans: named sets of limits and restrictions that many organisations share."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from meterplane.kernel.errors import CallerError
from tenants.limit_checks import checked_limit, checked_restriction, refuse
from tenants.models import Organisation, Plan
from tenants.plan_lock import locked_plan
from tenants.policy_port import recompile
from tenants.scoping import system_scope

STANDARD = "standard"  # what a new organisation is on
STANDARD_LIMITS = [
    {
        "level": "organisation",
        "kind": "requests",
        "window": "minute",
        "amount": 6000,
        "burst": 200,
        "mode": "enforce",
        "model": "",
    }
]
FIELDS = ("level", "kind", "window", "amount", "burst", "mode", "model")
RESTRICTIONS = ("models", "surfaces", "ip_ranges", "request_tokens_max")


def standard_plan() -> Plan:
    """The plan of new organisations, as the operator has made it; made where there is none.

    Locked: whoever is onboarded while it changes is bound by the change.
    """
    plan = locked_plan(STANDARD)
    if plan is None:
        plan, _ = Plan.objects.get_or_create(
            slug=STANDARD,
            defaults={
                "name": "Standard",
                "description": "What a new organisation starts with.",
                "limits": STANDARD_LIMITS,
            },
        )
    return plan


@transaction.atomic
def set_plan_limits(
    *,
    slug: str,
    name: str,
    description: str = "",
    limits: Sequence[dict[str, Any]],
    restrictions: Mapping[str, Any] | None = None,
) -> Plan:
    """Make a plan or change it; whoever is on it is bound when this returns.

    Each limit is an object of `FIELDS` (level, kind, window and amount are needed); restrictions
    are one of `RESTRICTIONS`. Raises `CallerError` naming the limit by its number and the field.
    """
    if not slug or not name.strip():
        raise refuse("name", "Give the plan a slug and a name.")
    checked, restricted = checked_limits(limits), checked_restrictions(restrictions or {})
    plan = locked_plan(slug) or Plan(slug=slug)
    plan.name, plan.description = name.strip(), description
    plan.limits, plan.restrictions = checked, restricted
    plan.save()
    with system_scope("a plan changed: list the organisations on it"):
        tenant_ids = list(
            Organisation.objects.filter(plan=plan).order_by("id").values_list("id", flat=True)
        )
    for tenant_id in tenant_ids:
        recompile(tenant_id)
    return plan


def checked_limits(limits: Sequence[Any]) -> list[dict[str, Any]]:
    """A plan's limits as they are stored. Raises `CallerError` of the field `limits`."""
    checked = [_checked(number, each) for number, each in enumerate(limits, 1)]
    said = [(each["level"], each["kind"], each["window"], each["model"]) for each in checked]
    for number, each in enumerate(said, 1):
        if each in said[: number - 1]:
            raise refuse("limits", f"Limit {number} says what another one says already.")
    return checked


def checked_restrictions(restrictions: Any) -> dict[str, Any]:
    """A plan's, as they are stored. Raises `CallerError` of the field `restrictions`."""
    if not isinstance(restrictions, Mapping):
        raise refuse("restrictions", "Restrictions are an object, {} for none.")
    unknown = set(restrictions) - set(RESTRICTIONS)
    if unknown:
        raise refuse(
            "restrictions", f"There is no {min(unknown)!r}; there are {', '.join(RESTRICTIONS)}."
        )
    values = dict.fromkeys(RESTRICTIONS) | dict(restrictions)
    tokens = values["request_tokens_max"]
    if isinstance(tokens, bool) or not isinstance(tokens, int | None):
        raise refuse("restrictions", "request_tokens_max: Give a whole number, or null.")
    for name in RESTRICTIONS[:3]:
        listed = values[name]
        if listed is not None and not (
            isinstance(listed, list) and all(isinstance(each, str) for each in listed)
        ):
            raise refuse("restrictions", f"{name}: Give a list of texts, or null.")
    try:
        checked = checked_restriction(**values)
    except CallerError as wrong:
        raise refuse("restrictions", f"{wrong.field}: {wrong.message}") from None
    return {name: value for name, value in checked.items() if value is not None}


def _checked(number: int, limit: Any) -> dict[str, Any]:
    if not isinstance(limit, dict):
        raise refuse("limits", f"Limit {number} is not an object.")
    unknown = set(limit) - set(FIELDS)
    if unknown:
        raise refuse("limits", f"Limit {number} has an unknown field {min(unknown)!r}.")
    values: dict[str, Any] = {"burst": None, "mode": "enforce", "model": ""} | limit
    for field in ("level", "kind", "window", "mode", "model"):
        if not isinstance(values.get(field), str):
            raise refuse("limits", f"Limit {number} needs a {field}.")
    for field in ("amount", "burst"):
        value = values.get(field)
        if isinstance(value, bool) or not isinstance(value, int | None):
            raise refuse("limits", f"Limit {number}: {field} is a whole number.")
    if values.get("amount") is None:
        raise refuse("limits", f"Limit {number} needs an amount.")
    if values["window"] == "prepaid":
        raise refuse("limits", f"Limit {number}: a balance is paid in, no plan gives one.")
    try:
        checked_limit(**values)
    except CallerError as wrong:
        raise refuse("limits", f"Limit {number}, {wrong.field}: {wrong.message}") from None
    return values
