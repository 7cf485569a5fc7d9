"""Close the month of everybody whose month is over. Any number of workers, killed at any time.

Guarantees: each organisation is closed by itself, in a transaction of its own (`close`): what was
done stays done, what was not is found again, because what is due is asked of the closed periods and
remembered nowhere. One whose usage cannot be rated is told and left; the others go on.

A month is closed `GRACE` after its end, so that journals of its last minutes have come in. What
comes later still is a line of the next invoice. Organisations of our own (the canary) owe nothing,
and a demo's past is written after the fact: neither is due by the clock.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from billing.invoicing.close import close_period
from billing.invoicing.usage import month_of
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.invariant import InvariantBroken
from tenants.scoping import system_scope
from tenants.synthetic import SLUGS

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
SHARDS = 8  # what one message closes: a power of two, and as many workers can share a month
PAGE = 200  # ids read at once

# A period that begins after `until` was closed early on purpose, and ends the question as well.
_DUE = """
  FROM organisation o
 WHERE o.created_at < %(until)s AND NOT o.is_demo AND o.slug <> ALL(%(ours)s)
   AND NOT EXISTS (SELECT FROM billing_period p WHERE p.tenant_id = o.id AND p.ends_at >= %(until)s)
"""


@dataclass(frozen=True, slots=True)
class Closed:
    """One organisation that was due. `problem` says why it still is."""

    tenant_id: UUID
    problem: str = ""


def month_due(at: datetime) -> datetime:
    """Until when everybody's usage is to be closed at instant `at`: the first of a month, UTC."""
    return month_of(at - GRACE)


def count_due(until: datetime) -> int:
    """How many organisations are not closed up to `until`."""
    with system_scope("whose month is over"), connection.cursor() as cursor:
        cursor.execute("SELECT count(*)" + _DUE, _parameters(until))
        return int(cursor.fetchone()[0])


def close_shard(
    until: datetime, shard: int, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[Closed]:
    """Close everybody of a shard (0 to `SHARDS` - 1) who is due, until `stop()`."""
    after = UUID(int=0)
    while page := _page(until, shard, after):
        for tenant_id in page:
            if stop():
                return
            yield _close(tenant_id, until)
        after = page[-1]


def seconds_from_now(seconds: int) -> Callable[[], bool]:
    """A `stop` for `close_shard`."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() > ends


def _page(until: datetime, shard: int, after: UUID) -> list[UUID]:
    with system_scope("whose month is over"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT o.id"
            + _DUE
            + " AND o.id > %(after)s AND (hashtext(o.id::text) & %(mask)s) = %(shard)s"
            " ORDER BY o.id LIMIT %(page)s",
            _parameters(until) | {"after": after, "mask": SHARDS - 1, "shard": shard, "page": PAGE},
        )
        return [row[0] for row in cursor.fetchall()]


def _parameters(until: datetime) -> dict[str, Any]:
    return {"until": until, "ours": list(SLUGS)}


def _close(tenant_id: UUID, until: datetime) -> Closed:
    try:
        close_period(tenant_id, until)
    except (CallerError, WorldError, InvariantBroken) as problem:
        log.exception("the month of organisation %s could not be closed", tenant_id)
        return Closed(tenant_id, str(problem) or type(problem).__name__)
    return Closed(tenant_id)
