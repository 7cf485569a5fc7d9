"""Reads of verdicts, and of how metering is. Every function needs the system's door."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, When

from meterplane.kernel import clock
from meterplane.metering.models import Reconciliation, UsageQuarantine
from meterplane.metering.reading import read
from meterplane.metering.reconcile.verdict import EVERY_SERVER
from meterplane.metering.watermark import SILENT_S

ROWS_MAX = 1000
QUARANTINE_LOOKS_BACK = timedelta(days=7)
HEALTH_LOOKS_BACK = timedelta(days=1)

_WORST = """
SELECT hour, bool_or(verdict = 'fail'), bool_or(verdict = 'open')
  FROM reconciliation
 WHERE hour >= %(since)s
 GROUP BY hour
 ORDER BY hour DESC
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one journal root has not been rid of. Ages are by the database's clock."""

    root: str
    host: str
    seen_at: datetime
    drained_until: datetime
    oldest_s: int
    silent_s: int

    @property
    def is_silent(self) -> bool:
        """Its shipper was not heard of for long."""
        return self.silent_s > SILENT_S


@dataclass(frozen=True, slots=True)
class Health:
    """Of the last day: the newest hour with a verdict, and how many hours failed or are open."""

    last_hour: datetime | None
    last_verdict: str
    failed_hours: int
    open_hours: int
    quarantined: int
    oldest_backlog_s: int


def verdicts_between(
    start: datetime, end: datetime, verdict: str = "", limit: int = ROWS_MAX
) -> list[Reconciliation]:
    """Of hours that begin in [start, end), newest first; of a model the sum first."""
    rows = Reconciliation.objects.filter(hour__gte=start, hour__lt=end)
    if verdict:
        rows = rows.filter(verdict=verdict)
    whole_first = Case(When(server=EVERY_SERVER, then=0), default=1)
    return list(rows.order_by("-hour", "model", whole_first, "server")[: min(limit, ROWS_MAX)])


def backlogs() -> list[Backlog]:
    """Every journal root that is known, the one that is furthest behind first."""
    rows = read(
        "SELECT root, host, seen_at, drained_until,"
        "       extract(epoch FROM clock_timestamp() - drained_until)::bigint,"
        "       extract(epoch FROM clock_timestamp() - seen_at)::bigint"
        "  FROM journal_watermark ORDER BY drained_until, root",
        {},
    )
    return [
        Backlog(str(root), host, seen, drained, max(0, oldest_s), max(0, silent_s))
        for root, host, seen, drained, oldest_s, silent_s in rows
    ]


def health() -> Health:
    """What an operator should see first."""
    now = clock.now()
    hours = read(_WORST, {"since": now - HEALTH_LOOKS_BACK})
    failed = sum(1 for _, fails, _ in hours if fails)
    undecided = sum(1 for _, fails, is_open in hours if is_open and not fails)
    last_hour, last_verdict = None, ""
    if hours:
        last_hour, fails, is_open = hours[0]
        last_verdict = "fail" if fails else "open" if is_open else "pass"
    since = now - QUARANTINE_LOOKS_BACK
    return Health(
        last_hour=last_hour,
        last_verdict=last_verdict,
        failed_hours=failed,
        open_hours=undecided,
        quarantined=UsageQuarantine.objects.filter(quarantined_at__gte=since).count(),
        oldest_backlog_s=max((each.oldest_s for each in backlogs()), default=0),
    )
