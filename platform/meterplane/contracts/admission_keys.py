"""Names of the admission keys in Redis: the control plane writes, the gateway reads and moves.

All keys of one organisation share the hash tag `{tenant}`, so one Lua call can touch them all, on
Redis Cluster too.
"""

from uuid import UUID


def version(tenant_id: UUID, key_id: UUID) -> str:
    """Current policy version of a key; only ever raised."""
    return f"mp:{{{tenant_id}}}:version:{key_id}"


def rate(tenant_id: UUID, key_id: UUID) -> str:
    """GCRA theoretical arrival time of a key, in microseconds."""
    return f"mp:{{{tenant_id}}}:rate:{key_id}"


def epoch(tenant_id: UUID) -> str:
    """Marks this Redis as having known the organisation; gone when Redis was lost."""
    return f"mp:{{{tenant_id}}}:epoch"


def pool(tenant_id: UUID, scope: str, scope_id: UUID, window: str) -> str:
    """Granted and not yet spent or reserved, in nano. `window` is e.g. `2026-11`."""
    return f"mp:{{{tenant_id}}}:pool:{scope}:{scope_id}:{window}"


def grants(tenant_id: UUID) -> str:
    """Ids of the budget grants already credited in this epoch."""
    return f"mp:{{{tenant_id}}}:grants"


def reservation(tenant_id: UUID, request_id: UUID) -> str:
    """One open reservation: a hash of pool key -> nano held."""
    return f"mp:{{{tenant_id}}}:reservation:{request_id}"
