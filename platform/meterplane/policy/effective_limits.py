"""Which limits bind a key: what the operator says at its scopes, narrowed by its organisation.

The operator's word for a limit (one level, kind, window and model) is the override that is set for
the scope, or else the plan's. An organisation's own limit of the same name only ever narrows it,
whatever was said first: of two of which one enforces and the other only tells, the one that
enforces holds; of two alike the smaller amount and the smaller burst, at every moment of a raise.

What keys may be used for is said in the same way: a plan restricts the organisation, and what the
operator says for the organisation itself replaces that, each of models, surfaces, ranges and tokens
by itself. All else that is said, at any level and by whomever, narrows what is left.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from ipaddress import ip_network
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from meterplane.contracts import policy as contract
from meterplane.contracts.usage import Surface
from meterplane.kernel import clock
from tenants.models import Limit, Restriction, SetBy

# What is cheap to refuse comes first, and money last: it costs PostgreSQL a visit.
_ORDER = ("requests", "concurrency", "input_tokens", "output_tokens", "total_tokens", "spend")


Name = tuple[str, str, str, str]  # level, kind, window, model


class Scopes(NamedTuple):
    """Where a key belongs. `key` is what its limits are counted under, `key_id` the key itself."""

    organisation: UUID
    project: UUID
    key: UUID
    key_id: UUID

    def of(self, level: str) -> UUID:
        """The scope of a limit's level."""
        return self.key if level == "key_model" else UUID(str(getattr(self, level)))


class Restrictions(NamedTuple):
    """What a key may be used for; None where nothing restricts it."""

    models: frozenset[str] | None = None
    surfaces: list[Surface] | None = None
    ip_ranges: list[str] | None = None
    request_tokens_max: int | None = None


def effective_limits(
    plan: Sequence[dict[str, Any]], rows: Iterable[Limit], scopes: Scopes
) -> list[contract.Limit]:
    """The limits of one key, each of its name once."""
    found: dict[Name, contract.Limit] = {}
    for given in plan:
        values = {**given, "scope_id": scopes.of(given["level"])}
        limit = msgspec.convert(values, contract.Limit)
        found[_name(limit)] = limit
    own: list[contract.Limit] = []
    for row in rows:
        if row.scope_id != scopes.of(row.level):
            continue
        if row.amount is None:
            found.pop((row.level, row.kind, row.window, row.model), None)
        elif row.set_by == SetBy.ORGANISATION:
            own.append(_stored(row))
        else:
            limit = _stored(row)
            found[_name(limit)] = limit
    for limit in own:
        bound = found.get(_name(limit))
        found[_name(limit)] = limit if bound is None else _narrower(bound, limit)
    return sorted(found.values(), key=lambda each: (_ORDER.index(each.kind), *_name(each)))


def _stored(row: Limit) -> contract.Limit:
    return msgspec.convert(
        {
            "level": row.level,
            "scope_id": row.scope_id,
            "kind": row.kind,
            "window": row.window,
            "amount": row.amount,
            "burst": row.burst,
            "mode": row.mode,
            "model": row.model,
            "raised_to": row.raised_to,
            "raised_until_ms": clock.to_ms(row.raised_until) if row.raised_until else None,
        },
        contract.Limit,
    )


def _narrower(bound: contract.Limit, own: contract.Limit) -> contract.Limit:
    """What holds of the operator's limit and the organisation's own of the same name.

    Of two raises that last, the narrower holds until the first of them ends: after that, less may
    hold than either says, never more.
    """
    if bound.mode != own.mode:
        return bound if bound.mode == "enforce" else own
    now_ms = clock.now_ms()
    ends = [
        limit.raised_until_ms
        for limit in (bound, own)
        if limit.raised_until_ms is not None and now_ms < limit.raised_until_ms
    ]
    amount = min(bound.amount, own.amount)
    raised_to = min(bound.amount_at(now_ms), own.amount_at(now_ms))
    bursts = [limit.amount if limit.burst is None else limit.burst for limit in (bound, own)]
    return msgspec.structs.replace(
        bound,
        amount=amount,
        burst=None if bound.burst is None and own.burst is None else min(bursts),
        raised_to=raised_to if raised_to > amount else None,
        raised_until_ms=min(ends) if raised_to > amount else None,
    )


def _name(limit: contract.Limit) -> Name:
    return limit.level, limit.kind, limit.window, limit.model


def effective_restrictions(
    plan: Mapping[str, Any], rows: Iterable[Restriction], scopes: Scopes
) -> Restrictions:
    """What is left for one key when its plan and every level of it have had their say."""
    own = {
        "organisation": scopes.organisation,
        "project": scopes.project,
        "key": scopes.key_id,
    }
    here = [row for row in rows if row.scope_id == own[row.level]]
    said = [unreplaced(plan, here), *(_said(row) for row in here)]
    models = [frozenset(each["models"]) for each in said if "models" in each]
    surfaces = [frozenset(each["surfaces"]) for each in said if "surfaces" in each]
    ranges = [each["ip_ranges"] for each in said if "ip_ranges" in each]
    tokens = [each["request_tokens_max"] for each in said if "request_tokens_max" in each]
    return Restrictions(
        models=frozenset.intersection(*models) if models else None,
        surfaces=msgspec.convert(sorted(frozenset.intersection(*surfaces)), list[Surface])
        if surfaces
        else None,
        ip_ranges=reduce(_within_both, ranges) if ranges else None,
        request_tokens_max=min(tokens, default=None),
    )


def unreplaced(plan: Mapping[str, Any], rows: Iterable[Restriction]) -> dict[str, Any]:
    """What a plan restricts that the operator does not say otherwise for the organisation."""
    replaced = [
        name
        for row in rows
        if row.level == "organisation" and row.set_by == SetBy.OPERATOR
        for name in _said(row)
    ]
    return {name: value for name, value in plan.items() if name not in replaced}


def _said(row: Restriction) -> dict[str, Any]:
    values = {
        "models": row.allowed_models,
        "surfaces": row.surfaces,
        "ip_ranges": row.ip_ranges,
        "request_tokens_max": row.request_tokens_max,
    }
    return {name: value for name, value in values.items() if value is not None}


def _within_both(first: list[str], second: list[str]) -> list[str]:
    """The ranges that are within both lists: of two that overlap the smaller one."""
    networks = [(ip_network(a), ip_network(b)) for a in first for b in second]
    smaller = [
        min(pair, key=lambda each: each.num_addresses)
        for pair in networks
        if pair[0].version == pair[1].version and pair[0].overlaps(pair[1])
    ]
    return sorted({str(each) for each in smaller})
