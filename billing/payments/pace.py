"""How fast a provider may be called, over all workers: each call takes its turn.

The problem: Stripe refuses what comes faster than so many a second, for each endpoint and for the
whole account, and a worker does not see the others. Choice: one row per endpoint says when it is
free next. A call moves that on by one interval, in one statement, and waits for the instant it got.
A refusal for speed moves the instant on for everybody.

Guarantees: over any number of workers, calls of one endpoint begin at least one interval apart, in
the order they asked. The rows are not logged: after a crash of PostgreSQL all endpoints are free.

Does not bound what others do with the same key; a refusal tells of it.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection

from meterplane.kernel.invariant import ensure

OVERALL = "overall"

# In the order of their names, so that two calls never wait for each other's rows.
_TURN = """
INSERT INTO provider_pace AS pace (account, endpoint, spacing, free_at)
SELECT %(account)s, endpoint, spacing, clock_timestamp() + spacing
  FROM unnest(%(endpoints)s::text[], %(spacings)s::interval[]) AS asked (endpoint, spacing)
 ORDER BY endpoint
ON CONFLICT (account, endpoint) DO UPDATE
   SET spacing = excluded.spacing,
       free_at = greatest(pace.free_at, clock_timestamp()) + excluded.spacing
RETURNING free_at - spacing - clock_timestamp()
"""
_HOLD = """
INSERT INTO provider_pace AS pace (account, endpoint, spacing, free_at)
VALUES (%(account)s, %(endpoint)s, '0', clock_timestamp() + make_interval(secs => %(pause_s)s))
ON CONFLICT (account, endpoint) DO UPDATE SET free_at = greatest(pace.free_at, excluded.free_at)
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """The turns of one account: how far apart calls are, those of one endpoint and all of them."""

    account: str
    endpoint_spacing: timedelta
    overall_spacing: timedelta

    def take_turn(self, endpoint: str) -> None:
        """Returns when a call to `endpoint` may begin."""
        ensure(not connection.in_atomic_block, "a turn is not taken inside a transaction")
        spacings = {endpoint: self.endpoint_spacing, OVERALL: self.overall_spacing}
        with connection.cursor() as cursor:
            cursor.execute(
                _TURN,
                {
                    "account": self.account,
                    "endpoints": list(spacings),
                    "spacings": list(spacings.values()),
                },
            )
            wait = max(row[0] for row in cursor.fetchall())
        if wait > timedelta(0):
            time.sleep(wait.total_seconds())

    def hold(self, endpoint: str, pause_s: int) -> None:
        """Nobody calls `endpoint` for `pause_s` seconds: the provider said that it was too fast."""
        with connection.cursor() as cursor:
            cursor.execute(
                _HOLD, {"account": self.account, "endpoint": endpoint, "pause_s": pause_s}
            )
