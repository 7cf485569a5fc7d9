"""Which limits bind a key: its plan's, less what is said otherwise at one of its scopes. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from meterplane.contracts import policy as contract
from meterplane.contracts.usage import Surface
from meterplane.kernel import clock
from tenants.models import Limit, Restriction

# What is cheap to refuse comes first, and money last: it costs PostgreSQL a visit.
_ORDER = ("requests", "concurrency", "input_tokens", "output_tokens", "total_tokens", "spend")


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
    plan: Sequence[dict[str, Any]], overrides: Iterable[Limit], scopes: Scopes
) -> list[contract.Limit]:
    """The limits of one key. An override replaces the plan's of its level, kind, window, model."""
    found: dict[tuple[str, str, str, str], contract.Limit] = {}
    for given in plan:
        values = {**given, "scope_id": scopes.of(given["level"])}
        limit = msgspec.convert(values, contract.Limit)
        found[_name(limit)] = limit
    for row in overrides:
        if row.scope_id != scopes.of(row.level):
            continue
        if row.amount is None:
            found.pop((row.level, row.kind, row.window, row.model), None)
            continue
        limit = msgspec.convert(
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
        found[_name(limit)] = limit
    return sorted(found.values(), key=lambda each: (_ORDER.index(each.kind), *_name(each)))


def _name(limit: contract.Limit) -> tuple[str, str, str, str]:
    return limit.level, limit.kind, limit.window, limit.model


def effective_restrictions(rows: Iterable[Restriction], scopes: Scopes) -> Restrictions:
    """What is left when every level of a key has had its say."""
    own = {
        "organisation": scopes.organisation,
        "project": scopes.project,
        "key": scopes.key_id,
    }
    models: frozenset[str] | None = None
    surfaces: set[str] | None = None
    ranges: list[str] | None = None
    tokens: list[int] = []
    for row in rows:
        if row.scope_id != own[row.level]:
            continue
        if row.allowed_models is not None:
            allowed = frozenset(row.allowed_models)
            models = allowed if models is None else models & allowed
        if row.surfaces is not None:
            surfaces = set(row.surfaces) if surfaces is None else surfaces & set(row.surfaces)
        if row.ip_ranges is not None:
            ranges = row.ip_ranges if ranges is None else _within_both(ranges, row.ip_ranges)
        if row.request_tokens_max is not None:
            tokens.append(row.request_tokens_max)
    return Restrictions(
        models=models,
        surfaces=None if surfaces is None else msgspec.convert(sorted(surfaces), list[Surface]),
        ip_ranges=ranges,
        request_tokens_max=min(tokens, default=None),
    )


def _within_both(first: list[str], second: list[str]) -> list[str]:
    """The ranges that are within both lists: of two that overlap the smaller one."""
    networks = [(ip_network(a), ip_network(b)) for a in first for b in second]
    smaller = [
        min(pair, key=lambda each: each.num_addresses)
        for pair in networks
        if pair[0].version == pair[1].version and pair[0].overlaps(pair[1])
    ]
    return sorted({str(each) for each in smaller})
