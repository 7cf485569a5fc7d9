"""How far invoices are on their way to the provider: done, waiting, parked, how fast, how long yet.

Guarantees: all of it is counted in the tables, so it is the same whoever asks and however many
workers are at it, and asking costs one statement over indexes (`0011_progress`).

A run is what was closed from the day on which the oldest invoice that waits was closed; where none
waits, of the last day on which any was. One that nobody can collect therefore keeps its run open,
for `LOOKS_BACK` at most. The rate is of invoices that became final at the provider within the last
`RATE_OVER_S`, and so says nothing of those that needed no call.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from meterplane.kernel import clock
from tenants.scoping import system_scope

LOOKS_BACK = timedelta(days=35)
RATE_OVER_S = 60
SECONDS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

# States are written out: an index serves only a query that has its condition. The bound that is
# given beside `begun` excludes nothing, and tells the planner how little is to be read.
_COUNTED = """
WITH uncollected AS (
  SELECT count(*) FILTER (WHERE collection_state = 'pending') AS waiting,
         count(*) FILTER (WHERE collection_state = 'parked') AS parked,
         min(created_at) FILTER (WHERE collection_state = 'pending') AS oldest
    FROM invoice WHERE collection_state IN ('pending', 'parked')
), newest AS (
  SELECT coalesce(oldest, (SELECT max(created_at) FROM invoice)) AS at FROM uncollected
), begun AS (
  SELECT CASE WHEN at IS NOT NULL
              THEN greatest(date_trunc('day', at, 'UTC'), %(now)s - %(looks_back)s) END AS at
    FROM newest
), closed AS (
  SELECT count(*) AS total, count(*) FILTER (WHERE collection_state = 'parked') AS parked,
         count(*) FILTER (WHERE collection_state = 'pending') AS waiting
    FROM invoice
   WHERE created_at >= (SELECT at FROM begun) AND created_at >= %(now)s - %(looks_back)s
), finalised AS (
  SELECT count(*) AS steps, min(done_at) AS first
    FROM payment_step
   WHERE kind = 'finalise' AND done_at > %(now)s - make_interval(secs => %(rate_over_s)s)
)
SELECT begun.at, closed.total - closed.parked - closed.waiting, uncollected.waiting, closed.parked,
       uncollected.parked - closed.parked, finalised.steps, finalised.first,
       (SELECT count(*) FROM payment_run WHERE lease_until > %(now)s)
  FROM uncollected, begun, closed, finalised
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the run that is under way, or of the last one. `began_on` is None before the first.

    `in_hand` of those `waiting` are held by a worker now; `parked_before` are parked of earlier
    runs. `rate_milli` is invoices in 1,000 seconds.
    """

    began_on: datetime | None
    done: int
    waiting: int
    parked: int
    parked_before: int
    in_hand: int
    rate_milli: int

    @property
    def total(self) -> int:
        return self.done + self.waiting + self.parked

    @property
    def percent(self) -> int:
        """Rounded down: 100 is all of them."""
        return 100 * (self.done + self.parked) // self.total if self.total else 0

    @property
    def left_s(self) -> int | None:
        """At this rate; None where there is none."""
        if not self.waiting:
            return 0
        return self.waiting * 1_000 // self.rate_milli if self.rate_milli else None

    @property
    def rate(self) -> str:
        """Such as `2.4/s`, or `6/min` where it is slow."""
        if not self.rate_milli:
            return "none"
        tenths = self.rate_milli // 100
        if tenths >= 10:
            return f"{tenths // 10}.{tenths % 10}/s"
        return f"{max(1, self.rate_milli * 60 // 1_000)}/min"

    @property
    def left(self) -> str:
        """The time left, in words."""
        if self.left_s is None:
            return "unknown"
        return duration(self.left_s) if self.waiting else "nothing waits"


def progress() -> Progress:
    """As the tables say now."""
    now = clock.now()
    asked: dict[str, Any] = {
        "now": now,
        "looks_back": LOOKS_BACK,
        "rate_over_s": RATE_OVER_S,
    }
    with system_scope("how far collecting is"), connection.cursor() as cursor:
        cursor.execute(_COUNTED, asked)
        began_on, done, waiting, parked, before, steps, first, in_hand = cursor.fetchone()
    since_s = max(1, int((now - first).total_seconds())) if first else 1
    return Progress(began_on, done, waiting, parked, before, in_hand, steps * 1_000 // since_s)


def why_parked(note: str) -> str:
    """In one line: the first difference, and how many there are more."""
    lines = [line.strip() for line in note.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0]}, and {len(lines) - 1} more"


def duration(seconds: int) -> str:
    """In its two largest units, such as `1 h 5 min`."""
    parts = []
    for unit, length in SECONDS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
