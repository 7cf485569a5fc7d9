"""What an organisation may say of its own limits: less than what is said for it, never more.

The operator's word for a scope is an override or else the plan's; one that lifts the plan's, or
that only notifies, bounds nothing. These are checks at the moment of the change, so that whoever
sets a limit learns at once that it would be none. That nothing is ever loosened does not rest on
them: `policy.effective_limits` compiles what is narrower, also after the plan has changed.
"""

from typing import Any

from meterplane.kernel.errors import CallerError
from tenants.limit_checks import refuse
from tenants.models import Limit, Organisation, SetBy

IDENTITY = ("level", "scope_id", "model", "kind", "window")
OWN_LIMITS_MAX = 1_000  # each is looked at for each key whenever one of either changes


def check_narrows(
    where: dict[str, Any], *, amount: int | None, burst: int | None, mode: str
) -> None:
    """Needs the organisation's door. `where` names the limit by `IDENTITY`.

    Raises `CallerError` naming the field.
    """
    if where["window"] == "prepaid":
        raise refuse("window", "A prepaid balance is paid in, not set.")
    if amount is None:
        raise refuse("amount", "Choose an amount; to have no limit of your own, remove it.")
    if burst is not None:
        raise refuse("burst", "A limit of your own allows its whole amount at once.")
    bound = _operators_bound(where)
    if bound is None:
        return
    if mode == "notify":
        raise refuse(
            "mode", "Your provider enforces a limit here; one of yours beside it can only refuse."
        )
    if amount > bound:
        raise refuse(
            "amount", "Your provider allows less here already: choose less than their limit."
        )


def check_room(where: dict[str, Any]) -> None:
    """Needs the organisation's door, locked. Raises `CallerError` 409 `too_many_limits`."""
    own = Limit.objects.filter(set_by=SetBy.ORGANISATION)
    if own.count() >= OWN_LIMITS_MAX and not own.filter(**where).exists():
        raise CallerError(
            "too_many_limits",
            f"An organisation sets at most {OWN_LIMITS_MAX:,} limits of its own; remove one.",
            status=409,
        )


def check_is_own(row: Limit) -> None:
    """Raises `CallerError` 403 `limit_not_yours` for a limit the operator set."""
    if row.set_by != SetBy.ORGANISATION:
        raise CallerError(
            "limit_not_yours",
            "Your provider set this limit; ask them to change it. You can set a smaller one.",
            status=403,
        )


def _operators_bound(where: dict[str, Any]) -> int | None:
    """What the operator enforces there, a raise that lasts left aside; None for no bound."""
    row: Limit | None = Limit.objects.filter(**where, set_by=SetBy.OPERATOR).first()
    if row is not None:
        return row.amount if row.mode == "enforce" else None
    plan = Organisation.objects.select_related("plan").get().plan
    named = {name: where[name] for name in IDENTITY if name != "scope_id"}
    for limit in plan.limits if plan else []:
        if limit["mode"] == "enforce" and all(limit[name] == named[name] for name in named):
            return int(limit["amount"])
    return None
