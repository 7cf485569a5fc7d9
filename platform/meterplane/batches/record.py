"""Write down what attempts came to, lines and counts together.

Guarantees: the first result of a line is its result, and it is counted once; the counts on the
batch are those of its lines after every transaction.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from meterplane.batches.claim import locked
from meterplane.batches.models import Batch, BatchLine
from meterplane.batches.outcome import Again, Ended
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

_END = """
WITH ended AS (
  UPDATE batch_line l
     SET status = r.status, http_status = r.http_status, body = r.body, lease_until = NULL
    FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::bytea[], %s::bigint[], %s::bigint[])
      AS r(id, status, http_status, body, tokens_in, tokens_out)
   WHERE l.tenant_id = %s AND l.batch_id = %s AND l.id = r.id AND l.status = 'waiting'
  RETURNING l.status, r.tokens_in, r.tokens_out
)
SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
       coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0)
  FROM ended
"""

_AGAIN = """
UPDATE batch_line l
   SET request_id = r.request_id, sent = r.sent, attempts = r.attempts, not_before = r.not_before,
       lease_until = NULL
  FROM unnest(%s::uuid[], %s::uuid[], %s::bool[], %s::int[], %s::timestamptz[])
    AS r(id, request_id, sent, attempts, not_before)
 WHERE l.tenant_id = %s AND l.batch_id = %s AND l.id = r.id AND l.status = 'waiting'
"""


def record(tenant_id: UUID, batch_id: UUID, outcomes: Sequence[Ended | Again]) -> None:
    """What attempts came to. An outcome of a line that has its result is passed over."""
    ended = [each for each in outcomes if isinstance(each, Ended)]
    again = [each for each in outcomes if isinstance(each, Again)]
    with tenant_scope(tenant_id):
        batch = locked(batch_id)
        if batch is None:
            return
        batch.worked_at = clock.now()
        with connection.cursor() as cursor:
            if again:
                _put_back(cursor, batch, again)
            if ended:
                _end(cursor, batch, ended)
        _save_counts(batch)


def end_the_rest(tenant_id: UUID, batch_id: UUID, error: bytes, *, sent: bool) -> None:
    """Fail the lines that wait: those not begun, or those whose fate nobody will tell any more."""
    now = clock.now()
    with tenant_scope(tenant_id):
        batch = locked(batch_id)
        if batch is None:
            return
        rest = BatchLine.objects.filter(
            batch_id=batch_id, status=BatchLine.Status.WAITING, sent=sent
        ).exclude(lease_until__gt=now)
        batch.failed += rest.update(
            status=BatchLine.Status.FAILED, body=error, lease_until=None, not_before=None
        )
        _save_counts(batch)


def _end(cursor: Any, batch: Batch, ended: Sequence[Ended]) -> None:
    cursor.execute(
        _END,
        [
            [each.line_id for each in ended],
            ["completed" if each.completed else "failed" for each in ended],
            [each.http_status for each in ended],
            [each.body for each in ended],
            [each.tokens_in for each in ended],
            [each.tokens_out for each in ended],
            batch.tenant_id,
            batch.id,
        ],
    )
    completed, failed, tokens_in, tokens_out = map(int, cursor.fetchone())
    batch.completed += completed
    batch.failed += failed
    batch.tokens_in += tokens_in
    batch.tokens_out += tokens_out


def _put_back(cursor: Any, batch: Batch, again: Sequence[Again]) -> None:
    now = clock.now()
    cursor.execute(
        _AGAIN,
        [
            [each.line_id for each in again],
            [each.request_id for each in again],
            [each.sent for each in again],
            [each.attempts for each in again],
            [now + timedelta(seconds=each.after_s) for each in again],
            batch.tenant_id,
            batch.id,
        ],
    )


def _save_counts(batch: Batch) -> None:
    """The counts; and when no line waits any more, the result files come next."""
    done = batch.completed + batch.failed == batch.total
    if batch.status == Batch.Status.IN_PROGRESS and done:
        batch.status, batch.finalizing_at = Batch.Status.FINALIZING, clock.now()
    batch.save(
        update_fields=[
            "completed", "failed", "tokens_in", "tokens_out", "status", "finalizing_at",
            "worked_at",
        ]
    )  # fmt: skip
