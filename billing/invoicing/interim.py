"""Invoice what was used so far of a month that is not over, once it is enough.

What is unbilled is live spend (`close.rate_open`: the function that rates the final invoice, on
what is known now) of the running month, less what interim invoices of it billed, taxes and credit
aside. Once that reaches the organisation's threshold (`thresholds`), an interim invoice is made of
the month so far: its lines as rated now, each interim invoice before it as a line below zero, and
so what is left is the difference. The month stays open, and its final invoice does the same
(`interim_lines`).

What only a whole month can owe is on its final invoice alone: minimum spend and commitment. So is
what arrives late of closed months. Discounts and the maximum spend are as they stand now.

Guarantees: one interim invoice for one excess, whatever is repeated, killed or runs at once. It is
made under the lock that closing takes, of spend that is read after the lock; PostgreSQL counts the
interim invoices of a period. An invoice, its lines, credit and taxes commit together or not at all.

A month has at most `INTERIMS_PER_PERIOD_MAX` of them; what it uses beyond is on its final invoice.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection

from billing.credits.hold import balance_changed, settle
from billing.invoicing.close import (
    Bill,
    one_closer_at_a_time,
    open_period,
    rate_open,
    write_invoice,
)
from billing.invoicing.due import PAGE, SHARDS
from billing.invoicing.interim_lines import Interim, interims_of, numbered_interims
from billing.invoicing.models import INTERIMS_PER_PERIOD_MAX, Invoice
from billing.invoicing.thresholds import threshold
from billing.invoicing.usage import month_after
from billing.rating.rate import RatedLine
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.invariant import InvariantBroken
from meterplane.kernel.money import minor_to_nano
from meterplane.metering import arrivals
from tenants.queries import organisation
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import SLUGS, is_synthetic

log = logging.getLogger(__name__)

_AT_MONTH_END = ("minimum", "commitment")
_HAVE_THRESHOLDS = """
  FROM organisation o LEFT JOIN interim_threshold t ON t.tenant_id = o.id
 WHERE NOT o.is_demo AND o.slug <> ALL(%(ours)s)
   AND (t.amount_minor IS NOT NULL OR (t.id IS NULL AND o.currency = ANY(%(defaults)s)))
"""
_WHY = "who is invoiced before the month is over"


@dataclass(frozen=True, slots=True)
class Looked:
    """One organisation that has a threshold, and the interim invoice that was made of it, if any.
    `problem` says why it could not be looked at."""

    tenant_id: UUID
    invoice: Invoice | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Unbilled:
    """What the running month owes that no interim invoice billed, and the lines it is from.

    `late_minor` is what closed months owe beside it: that is left to the month's own invoice.
    """

    starts_at: datetime
    until: datetime
    currency: str
    lines: tuple[RatedLine, ...]
    content_hash: str
    amount_minor: int
    late_minor: int


def make_interim(tenant_id: UUID) -> Invoice | None:
    """An interim invoice of the running month, if its unbilled spend has reached the threshold.

    None if it has not, if the organisation has none or is our own, and where the open period is of
    a month that is over: that is to be closed.
    """
    with tenant_scope(tenant_id):
        if _enough() is None:  # nearly always: nobody is kept waiting for this look
            return None
    with tenant_scope(tenant_id):
        one_closer_at_a_time(tenant_id)
        interims = numbered_interims(tenant_id, open_period().starts_at)
        seen = arrivals.hold()  # before usage is read: a line's events are those that had arrived
        found = _enough()
        if found is None:
            return None
        bill = Bill(tenant_id, found.starts_at, found.until, found.currency, found.lines, interims)
        late_nano = minor_to_nano(max(0, found.late_minor), found.currency)
        settle(found.until, unbilled_nano=late_nano)
        invoice = write_invoice(
            bill,
            kind=Invoice.Kind.INTERIM,
            interim_sequence=len(interims) + 1,
            usage_seen_at=seen.seen_at,
            usage_snapshot=seen.snapshot,
            content_hash=found.content_hash,
        )
        balance_changed(tenant_id)
        return invoice


def unbilled(interims: list[Interim], until: datetime) -> Unbilled | None:
    """What the running month owes at `until` beyond its interim invoices. Needs the door.

    None where no month is running, or none is left to be invoiced after the last of them.
    """
    period = open_period()
    if not period.starts_at < until < month_after(period.starts_at):
        return None
    if interims and interims[-1].ends_at >= until:
        return None
    currency = organisation().currency
    rated = rate_open(period, until, currency)
    late = sum(line.amount_minor for line in rated.lines if line.period.is_late)
    lines = tuple(
        line for line in rated.lines if not line.period.is_late and line.kind not in _AT_MONTH_END
    )
    spent = sum(line.amount_minor for line in lines)
    billed = sum(each.billed_minor for each in interims)
    return Unbilled(
        starts_at=period.starts_at,
        until=until,
        currency=currency,
        lines=lines,
        content_hash=rated.content_hash,
        amount_minor=spent - billed,
        late_minor=late,
    )


def _enough() -> Unbilled | None:
    least = threshold().amount_minor
    if least is None or is_synthetic(organisation()):
        return None
    interims = interims_of(open_period().starts_at)
    if len(interims) >= INTERIMS_PER_PERIOD_MAX:
        return None
    found = unbilled(interims, clock.now())
    return found if found is not None and found.amount_minor >= least else None


def has_anybody() -> bool:
    """Whether any organisation has a threshold."""
    with system_scope(_WHY), connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT" + _HAVE_THRESHOLDS + ")", _parameters())
        return bool(cursor.fetchone()[0])


def interim_shard(shard: int, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Looked]:
    """Look at everybody of a shard (0 to `SHARDS` - 1) who has a threshold, until `stop()`.

    One whose usage cannot be rated is told and left; the others go on.
    """
    after = UUID(int=0)
    while page := _page(shard, after):
        for tenant_id in page:
            if stop():
                return
            yield _look_at(tenant_id)
        after = page[-1]


def _page(shard: int, after: UUID) -> list[UUID]:
    with system_scope(_WHY), connection.cursor() as cursor:
        cursor.execute(
            "SELECT o.id"
            + _HAVE_THRESHOLDS
            + " AND o.id > %(after)s AND (hashtext(o.id::text) & %(mask)s) = %(shard)s"
            " ORDER BY o.id LIMIT %(page)s",
            _parameters() | {"after": after, "mask": SHARDS - 1, "shard": shard, "page": PAGE},
        )
        return [row[0] for row in cursor.fetchall()]


def _parameters() -> dict[str, Any]:
    return {"ours": list(SLUGS), "defaults": list(settings.INTERIM_THRESHOLDS)}


def _look_at(tenant_id: UUID) -> Looked:
    try:
        return Looked(tenant_id, make_interim(tenant_id))
    except (CallerError, WorldError, InvariantBroken) as problem:
        log.exception("no interim invoice of organisation %s could be made", tenant_id)
        return Looked(tenant_id, problem=str(problem) or type(problem).__name__)
