"""Triton's own counters, looked at once a minute and kept.

Guarantees: what is stored of one look was read in one answer, no earlier than `at` and within
seconds of it (`FETCH_TIMEOUT_S`). A server that does not answer leaves no row: reconciliation then
says that it knows nothing, and never that all is well. Any number of workers may look; each look is
its own. Old looks are thinned to one in `THINNED_S`, then deleted.

It does not know when a server was restarted: a counter that fell tells it (`served.py`).
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.db import connection

from meterplane.kernel import clock
from meterplane.triton.metrics import MeasuredServer, fetch_counters
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

KEPT_WHOLE = timedelta(days=2)
THINNED_S = 300
KEPT = timedelta(days=35)  # a month can be looked into until the next one is invoiced
MODELS_MAX = 10_000  # of one server; more is no Triton

_FORGET = "DELETE FROM triton_counter WHERE at < %s"
# The first look of each five minutes stays. Only the last day that may be thinned is gone through:
# what is older was thinned when it was as old.
_THIN = """
DELETE FROM triton_counter c
 USING (SELECT DISTINCT server, at,
               min(at) OVER (PARTITION BY server, floor(extract(epoch FROM at) / %(s)s)) AS first_at
          FROM triton_counter
         WHERE at < %(until)s AND at >= %(until)s - interval '1 day') looked
 WHERE c.server = looked.server AND c.at = looked.at AND looked.at > looked.first_at
"""


def scrape() -> int:
    """Look at every server once. How many answered."""
    return sum(_look(server) for server in settings.TRITON_METRICS)


def _look(server: MeasuredServer) -> bool:
    at = clock.now()
    try:
        counters = fetch_counters(server.metrics_url)
        if len(counters) > MODELS_MAX:
            raise ValueError(f"it counts {len(counters):,} models")
    except (OSError, ValueError) as problem:
        log.warning("no counters of %s: %s", server.name, problem)
        return False
    with system_scope("Triton's counters are kept"), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO triton_counter"
            " (server, at, model, version, success, failure, count, exec_count)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (server.name, at, model, version, c.success, c.failure, c.count, c.exec_count)
                for (model, version), c in sorted(counters.items())
            ],
        )
    return True


def forget_old_looks() -> None:
    """Keep storage bounded: thin what is two days old, drop what is too old to be asked for."""
    now = clock.now()
    with system_scope("old counters of Triton are thinned"), connection.cursor() as cursor:
        cursor.execute(_FORGET, [now - KEPT])
        cursor.execute(_THIN, {"s": THINNED_S, "until": now - KEPT_WHOLE})
