"""Acts on one organisation's credit take turns.

The order of locks is the same everywhere: a period's or an invoice's before this one, the ledger's
after it. What the lock only makes cheap, the projection of what remains makes true.
"""

from uuid import UUID

from django.db import connection


def one_act_at_a_time(tenant_id: UUID) -> None:
    """Wait for whoever moves this organisation's credit, until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"credits:{tenant_id}"]
        )
