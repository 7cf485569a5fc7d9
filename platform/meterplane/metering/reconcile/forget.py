"""What reconciliation keeps is bounded: looks and manifests a month, verdicts a year."""

from datetime import timedelta

from django.db import connection

from meterplane.kernel import clock
from meterplane.metering.reconcile.scrape import forget_old_looks
from meterplane.metering.reconcile.spread import forget_old_manifests
from tenants.scoping import system_scope

VERDICTS_KEPT = timedelta(days=400)
CANARY_RUNS_KEPT = timedelta(days=35)


def forget_what_is_old() -> None:
    """Runs as often as it likes; each part is a transaction."""
    forget_old_looks()
    forget_old_manifests()
    now = clock.now()
    with system_scope("old verdicts are dropped"), connection.cursor() as cursor:
        before = [now - VERDICTS_KEPT]
        cursor.execute("DELETE FROM reconciliation WHERE hour < %s", before)
        cursor.execute("DELETE FROM reconciliation_hour WHERE hour < %s", before)
        cursor.execute("DELETE FROM canary_run WHERE started_at < %s", [now - CANARY_RUNS_KEPT])
