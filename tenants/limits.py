"""Set, raise and remove limits and restrictions. When a verb returns, the gateways obey.

Each verb is one transaction with the recompilation of the organisation's policies: a limit that is
refused has changed nothing. It locks the organisation before anything of it, and a plan before
that: of two changes at once one waits for the other, never both. An organisation that is not there
is `CallerError` `organisation_not_found`.

`by` says whose word it is. The operator's (with the plan, where the operator says nothing else)
bounds. What an organisation says for itself stands beside it and only ever narrows: it is refused
where it would not (`tenants.own_limits`), and compiled to what is narrower, should the plan become
so later. Neither side's change touches the other's rows, but that an operator may remove and raise
an organisation's own.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from meterplane.contracts import policy as contract
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants import policy_port
from tenants.limit_checks import AMOUNT_MAX, checked_limit, checked_restriction, refuse
from tenants.models import ApiKey, BalanceTopUp, Limit, Organisation, Project, Restriction, SetBy
from tenants.own_limits import IDENTITY, check_is_own, check_narrows, check_room
from tenants.plan_lock import locked_plan
from tenants.scoping import tenant_scope

REFERENCE_MAX = 120


def set_limit(
    *,
    tenant_id: UUID,
    level: str,
    scope_id: UUID,
    kind: str,
    window: str,
    amount: int | None,
    burst: int | None = None,
    mode: str = "enforce",
    model: str = "",
    by: SetBy = SetBy.OPERATOR,
) -> Limit:
    """Set one limit of a scope; the operator's without `amount` lifts what the plan says for it.

    Amounts are requests, tokens, requests at once, or nano of the organisation's currency. A raise
    that is under way ends. Raises `CallerError` naming the field, 404 for a scope that is not here.
    """
    checked_limit(
        level=level, kind=kind, window=window, amount=amount, burst=burst, mode=mode, model=model
    )
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        _check_scope(tenant_id, level, scope_id)
        where: dict[str, Any] = {
            "level": level,
            "scope_id": _counted_under(level, scope_id),
            "model": model,
            "kind": kind,
            "window": window,
        }
        if by == SetBy.ORGANISATION:
            check_narrows(where, amount=amount, burst=burst, mode=mode)
            check_room(where)
        row: Limit
        row, _ = Limit.objects.update_or_create(
            tenant_id=tenant_id,
            set_by=by,
            **where,
            defaults={
                "amount": amount,
                "burst": burst,
                "mode": mode,
                "raised_to": None,
                "raised_until": None,
                "changed_at": clock.now(),
            },
        )
        policy_port.recompile(tenant_id)
    return row


def remove_limit(*, tenant_id: UUID, limit_id: UUID, by: SetBy = SetBy.OPERATOR) -> None:
    """Remove one limit: from then on what else is said holds there.

    Raises `CallerError` 404, or 403 `limit_not_yours` for an organisation that means another's.
    """
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        row = _limit(limit_id)
        if by == SetBy.ORGANISATION:
            check_is_own(row)
        row.delete()
        policy_port.recompile(tenant_id)


def raise_temporarily(
    *,
    tenant_id: UUID,
    limit_id: UUID,
    amount: int,
    until: datetime,
    by: SetBy = SetBy.OPERATOR,
) -> Limit:
    """Let `amount` hold until an instant; then what is set holds again, by itself.

    Raises `CallerError` naming the field, 404, or 403 `limit_not_yours` as `remove_limit` does.
    """
    if until <= clock.now():
        raise refuse("until", "Choose an end in the future.")
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        row = _limit(limit_id)
        if row.amount is None or amount <= row.amount:
            raise refuse("amount", "A raise is to more than the limit that is set.")
        checked_limit(
            level=row.level, kind=row.kind, window=row.window, amount=amount, burst=row.burst,
            mode=row.mode, model=row.model,
        )  # fmt: skip
        if by == SetBy.ORGANISATION:
            check_is_own(row)
            where = {name: getattr(row, name) for name in IDENTITY}
            check_narrows(where, amount=amount, burst=row.burst, mode=row.mode)
        row.raised_to, row.raised_until, row.changed_at = amount, until, clock.now()
        row.save(update_fields=["raised_to", "raised_until", "changed_at"])
        policy_port.recompile(tenant_id)
    return row


def add_balance(*, tenant_id: UUID, nano: int, reference: str) -> Limit:
    """Pay in to the organisation's prepaid balance, in nano of its currency; the first opens it.

    `reference` names the payment: told of it again, nothing is paid in. Raises `CallerError` naming
    the field, `reference_taken` for one that named another amount.
    """
    if nano <= 0:
        raise refuse("amount", "Pay in more than nothing.")
    if not 1 <= len(reference.strip()) <= REFERENCE_MAX:
        raise refuse(
            "reference",
            f"Name the payment in 1 to {REFERENCE_MAX} characters, so that it is paid in once.",
        )
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        is_new = _is_new_payment(tenant_id, reference.strip(), nano)
        row: Limit
        row, _ = Limit.objects.get_or_create(
            tenant_id=tenant_id,
            level="organisation",
            scope_id=tenant_id,
            kind="spend",
            window="prepaid",
            defaults={"amount": 0},
        )
        row.amount = (row.amount or 0) + (nano if is_new else 0)
        checked_limit(
            level=row.level, kind=row.kind, window=row.window, amount=row.amount, burst=None,
            mode=row.mode, model="",
        )  # fmt: skip
        row.changed_at = clock.now()
        row.save(update_fields=["amount", "changed_at"])
        policy_port.recompile(tenant_id)
    return row


def set_balance_alert(*, tenant_id: UUID, nano: int | None) -> None:
    """Say below which prepaid balance it is told; 0: never; None: a tenth of the last payment."""
    if nano is not None and not 0 <= nano <= AMOUNT_MAX:
        raise refuse("below", "Choose an amount of 0 to a billion, or none.")
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        Organisation.objects.filter(id=tenant_id).update(balance_alert_nano=nano)


def set_restriction(
    *,
    tenant_id: UUID,
    level: str,
    scope_id: UUID,
    models: Sequence[str] | None = None,
    surfaces: Sequence[str] | None = None,
    ip_ranges: Sequence[str] | None = None,
    request_tokens_max: int | None = None,
    by: SetBy = SetBy.OPERATOR,
) -> Restriction | None:
    """Say what the keys of a scope may be used for; all None removes what was said.

    A key is bound by what is said at each of its levels, by whomever. Raises `CallerError`
    naming the field.
    """
    if level not in ("organisation", "project", "key"):
        raise refuse("level", "Restrict an organisation, a project or a key.")
    values = checked_restriction(
        models=models,
        surfaces=surfaces,
        ip_ranges=ip_ranges,
        request_tokens_max=request_tokens_max,
    )
    values["allowed_models"] = values.pop("models")
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        _check_scope(tenant_id, level, scope_id)
        scope: dict[str, Any] = {
            "tenant_id": tenant_id,
            "set_by": by,
            "level": level,
            "scope_id": scope_id,
        }
        row: Restriction | None = None
        if all(value is None for value in values.values()):
            Restriction.objects.filter(**scope).delete()
        else:
            row, _ = Restriction.objects.update_or_create(
                **scope, defaults=values | {"changed_at": clock.now()}
            )
        policy_port.recompile(tenant_id)
    return row


def set_plan(*, tenant_id: UUID, slug: str | None) -> None:
    """Put the organisation on a plan, or on none. Raises `CallerError` `plan_not_found`."""
    with tenant_scope(tenant_id):
        plan = None if slug is None else locked_plan(slug)
        if slug is not None and plan is None:
            raise CallerError(
                "plan_not_found", f"There is no plan {slug!r}.", status=404, field="plan"
            )
        _lock(tenant_id)
        Organisation.objects.filter(id=tenant_id).update(plan=plan)
        policy_port.recompile(tenant_id)


def set_priority(*, tenant_id: UUID, priority: str, weight: int) -> None:
    """Say who is served first where a model is busy. Raises `CallerError` naming the field."""
    if priority not in get_args(contract.Priority):
        raise refuse("priority", "Choose high, normal or low.")
    if not 1 <= weight <= 1000:
        raise refuse("weight", "Choose a weight of 1 to 1,000.")
    with tenant_scope(tenant_id):
        _lock(tenant_id)
        Organisation.objects.filter(id=tenant_id).update(priority=priority, weight=weight)
        policy_port.recompile(tenant_id)


def _is_new_payment(tenant_id: UUID, reference: str, nano: int) -> bool:
    known, is_new = BalanceTopUp.objects.get_or_create(
        tenant_id=tenant_id, reference=reference, defaults={"amount_nano": nano}
    )
    if known.amount_nano != nano:
        raise CallerError(
            "reference_taken",
            f"Payment {reference!r} was paid in with another amount.",
            status=409,
            field="reference",
        )
    return bool(is_new)


def _lock(tenant_id: UUID) -> None:
    if Organisation.objects.select_for_update(no_key=True).filter(id=tenant_id).first() is None:
        raise CallerError("organisation_not_found", "There is no such organisation.", status=404)


def _limit(limit_id: UUID) -> Limit:
    row: Limit | None = Limit.objects.select_for_update().filter(id=limit_id).first()
    if row is None:
        raise CallerError("limit_not_found", "There is no such limit here.", status=404)
    return row


def _check_scope(tenant_id: UUID, level: str, scope_id: UUID) -> None:
    if level == "organisation":
        here = scope_id == tenant_id
    elif level == "project":
        here = Project.objects.filter(id=scope_id).exists()
    else:
        here = ApiKey.objects.filter(id=scope_id).exists()
    if not here:
        name = {"key_model": "API key", "key": "API key"}.get(level, level)
        raise CallerError(
            "scope_not_found", f"There is no such {name} here.", status=404, field="scope_id"
        )


def _counted_under(level: str, scope_id: UUID) -> UUID:
    """Keys that follow one another in a rotation share their limits."""
    if level not in ("key", "key_model"):
        return scope_id
    key: ApiKey = ApiKey.objects.get(id=scope_id)
    return key.limits_scope_id or key.id
