"""Which days are compared when, and what was found of each.

A day is a UTC day of what was made there. The last two are compared every ten minutes, all the
others each night: an old invoice may be changed there too. Clearing accounts are looked at with
them, as of now.

Guarantees: a finding is opened once, with an alarm, and closed by the first comparison that does
not find it; what has been closed and comes back is a new one. A worker that dies leaves its day to
the next after `HOLD`, and the night goes on from there. A run stops beginning days after `RUN_MAX`,
the newest ones first; calls take their turns like any other, so comparing does not keep invoices
waiting. Two workers that find the same at once store it once.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import connection
from django.db.models import Min

from billing.payments.models import BillingAccount, PaymentFinding, ReconciledDay
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.clearing import clearing
from billing.payments.reconcile.look import look
from billing.payments.reconcile.looked import Looked
from meterplane.kernel import clock
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
RECENT_DAYS, RECENT_EVERY = 2, timedelta(minutes=10)
NIGHT_BEGINS = timedelta(hours=3)  # UTC: months are closed and the ledger is audited before
HOLD = timedelta(minutes=15)
RUN_MAX = timedelta(minutes=5)  # half of what a task may take; a day of 10,000 invoices is 20 s
DAYS_OPENED_MAX = 400

_OPEN = """
INSERT INTO reconciled_day (provider, day, due_at, compared)
SELECT %(provider)s, day::date, %(now)s, 0
  FROM generate_series(%(first)s::date, %(today)s::date, interval '1 day') day
ON CONFLICT DO NOTHING
"""
_CLAIM = """
UPDATE reconciled_day SET due_at = %(held)s
 WHERE id = (SELECT id FROM reconciled_day
              WHERE provider = %(provider)s AND due_at <= %(now)s
              ORDER BY day DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING day
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One day: how many rows were compared, and how many findings are open of it now."""

    day: date
    compared: int
    open_findings: int


def reconcile_due(provider: PaymentProvider) -> list[Compared]:
    """Compare the days that are due. Raises `WorldError` when the provider is away."""
    open_days(provider)
    began, done = clock.now(), list[Compared]()
    while clock.now() - began < RUN_MAX and (day := _claim(provider)) is not None:
        done.append(reconcile_day(provider, day))
    if done:
        reconcile_clearing(provider)
    return done


def reconcile_clearing(provider: PaymentProvider) -> Looked:
    """Look at the clearing accounts now, and store what was found."""
    looked, now = clearing(), clock.now()
    with system_scope("what was found of clearing accounts"):
        _one_at_a_time()
        _store(provider.name, now.date(), looked, now)
    return looked


def open_days(provider: PaymentProvider) -> None:
    """Every day since the first customer was made, with invoices or without."""
    today = clock.now().date()
    with system_scope("days to compare"), connection.cursor() as cursor:
        first: datetime | None = BillingAccount.objects.filter(provider=provider.name).aggregate(
            at=Min("created_at")
        )["at"]
        if first is None:
            return
        since = max(first.astimezone(UTC).date(), today - DAYS_OPENED_MAX * DAY)
        cursor.execute(
            _OPEN,
            {"provider": provider.name, "first": since, "today": today, "now": clock.now()},
        )


def reconcile_day(provider: PaymentProvider, day: date) -> Compared:
    """Compare one day now, due or not, and store what was found."""
    start = datetime.combine(day, time.min, UTC)
    looked = look(provider, start, start + DAY)
    now = clock.now()
    with system_scope("what was found of a day"):
        _one_at_a_time()
        row, _ = ReconciledDay.objects.get_or_create(provider=provider.name, day=day)
        for each in looked:
            _store(provider.name, day, each, now)
        row.compared = sum(each.compared for each in looked)
        row.counts = {
            each.kind: {"compared": each.compared, "agreed": each.agreed} for each in looked
        }
        row.compared_at, row.due_at = now, _due_again(day, now)
        row.save()
        return Compared(day, row.compared, sum(len(each.found) for each in looked))


def _due_again(day: date, now: datetime) -> datetime:
    """In ten minutes, or in the next night."""
    if now.date() - day < RECENT_DAYS * DAY:
        return now + RECENT_EVERY
    tonight = datetime.combine(now.date(), time.min, UTC) + NIGHT_BEGINS
    return tonight if now < tonight else tonight + DAY


def _one_at_a_time() -> None:
    """Storing is quick. Until it is committed nobody else stores what was found."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('payments.found', 0))")


def _claim(provider: PaymentProvider) -> date | None:
    now = clock.now()
    with system_scope("a day that is due"), connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"provider": provider.name, "now": now, "held": now + HOLD})
        row = cursor.fetchone()
    return row[0] if row else None


def _store(provider: str, day: date, looked: Looked, now: datetime) -> None:
    """Open what is new, note what is still so, close what is gone."""
    known = {
        (row.problem, row.our_id, row.their_id): row
        for row in PaymentFinding.objects.filter(
            provider=provider, kind=looked.kind, closed_at=None
        )
    }
    for found in looked.found:
        row = known.pop((found.problem, found.our_id, found.their_id), None)
        if row is None:
            log.error("payments do not add up: %s", found.said)
            row = PaymentFinding(
                provider=provider,
                day=day,
                kind=looked.kind,
                problem=found.problem,
                our_id=found.our_id,
                their_id=found.their_id,
                opened_at=now,
            )
        elif row.said != found.said and row.acknowledged_at is not None:
            log.error("payments do not add up otherwise than acknowledged: %s", found.said)
            row.acknowledged_at, row.acknowledged_by, row.acknowledgement = None, "", ""
        row.said, row.seen_at = found.said, now
        row.our_amount, row.their_amount = found.our_amount, found.their_amount
        row.save()
    # One that is made at midnight may be of two days: the day that opened a finding closes it.
    for gone in known.values():
        if gone.their_id in looked.undecided or (looked.is_of_day and gone.day != day):
            continue
        gone.closed_at = now
        gone.save(update_fields=["closed_at"])
