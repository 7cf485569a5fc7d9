"""One worker at a time for what is written as a whole: a batch's lines, and its result files.

An advisory lock of the transaction: a killed worker's is gone with its connection, and unlike the
row's own lock nobody who cancels or reads the batch waits for it.
"""

from uuid import UUID

from django.db import connection


def taken(batch_id: UUID) -> bool:
    """True if this transaction now holds the batch's lock, until it ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"batch {batch_id}"]
        )
        return bool(cursor.fetchone()[0])
