"""How fast a provider may be called, over all workers: each call takes its turn.

The problem: Stripe refuses what comes faster than so many a second, for each endpoint and for the
whole account, and a worker does not see the others. Choice: one row per endpoint says when it is
free next. A call moves that on by one interval, in one statement, and waits for the instant it got.
A refusal for speed moves the instant on for everybody.

What leaves at its turn gets there a little later, one call more than another: at turns exactly as
far apart as is permitted, a second that begins with a late call has one too many. So turns are as
far apart as if a second were longer by `LATE`; and who wakes too late lets that turn go, and waits
for another.

Guarantees: over any number of workers, calls of one endpoint begin at least one interval apart, in
the order they asked; no second, wherever it begins, sees more of them arrive than is permitted, as
long as none takes longer on its way than another by `LATE` less `OVERSLEPT_MAX`. The rows are not
logged: after a crash of PostgreSQL all endpoints are free.

Does not bound what others do with the same key; a refusal tells of it.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection

from meterplane.kernel.invariant import ensure

OVERALL = "overall"
SECOND = timedelta(seconds=1)
LATE = timedelta(milliseconds=60)  # 23.6 calls a second where 25 are permitted
OVERSLEPT_MAX = timedelta(milliseconds=20)
TURNS_MAX = 10  # let go by one call; a machine that is that busy is not what is too fast

# The account's turn first, always: so two calls never wait for each other's rows. What waits for it
# takes its endpoint's turn then, and not before, or those that waited would leave at once.
_TURN = """
WITH overall AS (
  INSERT INTO provider_pace AS pace (account, endpoint, spacing, free_at)
  VALUES (%(account)s, %(overall)s, %(overall_spacing)s, clock_timestamp() + %(overall_spacing)s)
  ON CONFLICT (account, endpoint) DO UPDATE
     SET spacing = excluded.spacing,
         free_at = greatest(pace.free_at, clock_timestamp()) + excluded.spacing
  RETURNING free_at - spacing AS turn_at)
INSERT INTO provider_pace AS pace (account, endpoint, spacing, free_at)
SELECT %(account)s, %(endpoint)s, %(spacing)s, turn_at + %(spacing)s FROM overall
ON CONFLICT (account, endpoint) DO UPDATE
   SET spacing = excluded.spacing,
       free_at = greatest(pace.free_at, excluded.free_at - excluded.spacing) + excluded.spacing
RETURNING free_at - spacing - clock_timestamp()
"""
_HOLD = """
INSERT INTO provider_pace AS pace (account, endpoint, spacing, free_at)
VALUES (%(account)s, %(endpoint)s, '0', clock_timestamp() + make_interval(secs => %(pause_s)s))
ON CONFLICT (account, endpoint) DO UPDATE SET free_at = greatest(pace.free_at, excluded.free_at)
"""


def apart(calls_per_s: int) -> timedelta:
    """How far apart turns are, so that no second has more calls than that."""
    return (SECOND + LATE) / calls_per_s


@dataclass(frozen=True, slots=True)
class Pace:
    """The turns of one account: how far apart calls are, those of one endpoint and all of them."""

    account: str
    endpoint_spacing: timedelta
    overall_spacing: timedelta

    def take_turn(self, endpoint: str) -> None:
        """Returns when a call to `endpoint` may begin."""
        ensure(not connection.in_atomic_block, "a turn is not taken inside a transaction")
        for _ in range(TURNS_MAX):
            wait = self._turn(endpoint)
            if wait <= timedelta(0):
                return
            told_at = time.monotonic()
            time.sleep(wait.total_seconds())
            overslept = timedelta(seconds=time.monotonic() - told_at) - wait
            if overslept <= OVERSLEPT_MAX:
                return

    def _turn(self, endpoint: str) -> timedelta:
        """Take the next turn; how long it is until then."""
        asked: dict[str, Any] = {
            "account": self.account,
            "overall": OVERALL,
            "overall_spacing": self.overall_spacing,
            "endpoint": endpoint,
            "spacing": self.endpoint_spacing,
        }
        with connection.cursor() as cursor:
            cursor.execute(_TURN, asked)
            wait: timedelta = cursor.fetchone()[0]
        return wait

    def hold(self, endpoint: str, pause_s: int) -> None:
        """Nobody calls `endpoint` for `pause_s` seconds: the provider said that it was too fast."""
        with connection.cursor() as cursor:
            cursor.execute(
                _HOLD, {"account": self.account, "endpoint": endpoint, "pause_s": pause_s}
            )
