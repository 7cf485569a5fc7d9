"""Names of the admission keys in Redis: the control plane writes, the gateway reads and moves.

All keys of one organisation share the hash tag `{tenant}`, so one Lua call can touch them all, on
Redis Cluster too.
"""

from typing import NamedTuple
from uuid import UUID

from meterplane.contracts.policy import Limit


def version(tenant_id: UUID, key_id: UUID) -> str:
    """Current policy version of a key; only ever raised."""
    return f"mp:{{{tenant_id}}}:version:{key_id}"


def epoch(tenant_id: UUID) -> str:
    """Marks this Redis as having known the organisation; gone when Redis was lost."""
    return f"mp:{{{tenant_id}}}:epoch"


def limit(tenant_id: UUID, limit: Limit, label: str) -> str:
    """What one limit has counted, or the pool of a spend limit.

    Rates: GCRA theoretical arrival time. Days: a counter. At once: a sorted set of reservations by
    deadline. Spend: a hash in nano, `left` (credited, neither spent nor reserved), `credited` and
    `spent` in this epoch, `granted` (all that PostgreSQL granted, as of `revision`). `label` tells
    calendar windows apart, e.g. `2026-11`; see `contracts.windows`.
    """
    what = f"{limit.level}:{limit.scope_id}:{limit.kind}:{limit.window}"
    return f"mp:{{{tenant_id}}}:limit:{what}:{label}:{limit.model}"


class LimitWindowName(NamedTuple):
    """A limit in one of its windows, as `limit` puts it into a key's name."""

    level: str
    scope_id: UUID
    model: str
    kind: str
    window: str
    label: str


def limit_named(key: str) -> LimitWindowName | None:
    """What `limit` named so; None for any other text."""
    # The model comes last: it alone may hold a colon. The organisation's braces hold none.
    parts = key.split(":", 8)
    if len(parts) != 9 or parts[0] != "mp" or parts[2] != "limit":
        return None
    level, scope_id, kind, window, label, model = parts[3:]
    try:
        return LimitWindowName(level, UUID(scope_id), model, kind, window, label)
    except ValueError:
        return None


def hits(tenant_id: UUID) -> str:
    """A hash: how often each limit was hit since the last sweep; its fields are whole names of keys
    of `limit`. A limit that only notifies is hit when it would have refused, a budget when it did.
    """
    return f"mp:{{{tenant_id}}}:hits"


def hits_swept(tenant_id: UUID) -> str:
    """The hits a sweep took, until they are written down; its field `SWEEP` names the sweep."""
    return f"mp:{{{tenant_id}}}:hits:swept"


SWEEP = "sweep"


def grants(tenant_id: UUID) -> str:
    """Ids of the budget grants already credited in this epoch."""
    return f"mp:{{{tenant_id}}}:grants"


def reservation(tenant_id: UUID, name: UUID | str) -> str:
    """One open reservation, under its name (`usage.Admit.reservation`): what it holds of what."""
    return f"mp:{{{tenant_id}}}:reservation:{name}"


def reservations_by(mark: str) -> str:
    """A pattern of all that one worker made: its mark is what its tokens begin with."""
    return f"mp:{{*}}:reservation:*:{mark}*"
