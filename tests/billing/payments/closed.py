"""Invoices in any number and state, written without being closed, for what only counts them."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import connection

from tenants.scoping import system_scope
from tests.conftest import OnboardedOrganisation

_INVOICES = """
INSERT INTO invoice (id, tenant_id, kind, interim_sequence, usage_seen_at, usage_snapshot,
    period_start, period_end, status, currency, total_minor, content_hash, created_at,
    collection_state, collection_note, hosted_url, payment_attempts)
SELECT gen_random_uuid(), %(tenant)s, 'interim', 1, now(), '{}',
       '2020-01-01Z'::timestamptz + (n + %(salt)s) * interval '1 minute', '2026-10-01Z',
       'draft', 'USD', 0, 'x', %(at)s::timestamptz + n * interval '1 ms', %(state)s, '', '', 0
  FROM generate_series(0, %(count)s - 1) AS n
"""
_FINALISED = """
WITH one AS (
  SELECT id FROM invoice WHERE NOT EXISTS (SELECT 1 FROM payment_run WHERE invoice_id = invoice.id)
   LIMIT %(count)s
), run AS (
  INSERT INTO payment_run (id, tenant_id, invoice_id, provider, customer_id, digest, attempts,
                           next_attempt_at, created_at, lease_token, lease_until)
  SELECT gen_random_uuid(), %(tenant)s, id, 'stripe', 'cus_1', '', 0, now(), now(),
         CASE WHEN %(until)s::timestamptz IS NOT NULL THEN gen_random_uuid() END,
         %(until)s::timestamptz
    FROM one RETURNING id, invoice_id
)
INSERT INTO payment_step (id, tenant_id, run_id, kind, revision, parameters, digest,
                          idempotency_key, state, attempts, result_id, note, created_at, done_at)
SELECT gen_random_uuid(), %(tenant)s, id, 'finalise', 1, '{}', '', id::text, 'done', 1, '', '',
       now(), %(at)s::timestamptz + (row_number() OVER () - 1) * %(apart)s
  FROM run
"""


def in_our_door(statement: str, given: dict[str, object]) -> None:
    """Seen by the connection of the test."""
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute(statement, given)


class Closed:
    """Invoices of one tenant, as many as a test needs, in any state."""

    def __init__(
        self, tenant: OnboardedOrganisation, execute: Callable[..., object] = in_our_door
    ) -> None:
        self._tenant, self._execute, self._salt = tenant, execute, 0

    def add(self, count: int, state: str, at: datetime) -> None:
        """Closed from `at` on."""
        self._salt += 10_000
        given = {"count": count, "state": state, "at": at, "salt": self._salt}
        self._run(_INVOICES, given)

    def finalise(
        self, count: int, at: datetime, apart: timedelta, until: datetime | None = None
    ) -> None:
        """Steps that were done from `at` on, `apart`; with a lease until then."""
        self._run(_FINALISED, {"count": count, "at": at, "apart": apart, "until": until})

    def _run(self, statement: str, given: dict[str, object]) -> None:
        self._execute(statement, given | {"tenant": self._tenant.id})
