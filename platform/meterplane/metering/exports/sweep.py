"""What time does to exports: doorbells that were lost, files that expired."""

from datetime import timedelta

from meterplane.kernel import clock
from meterplane.metering.exports import content
from meterplane.metering.exports.doorbell import ring
from meterplane.metering.exports.limits import QUIET_FOR, SWEEP_MAX
from meterplane.metering.exports.request import life
from meterplane.metering.models import Export
from tenants.scoping import system_scope

HOPELESS_AFTER = timedelta(days=2)
HOPELESS = "It could not be written within two days. Ask for less at once, or ask your provider."


def sweep() -> None:
    """Ring for exports nobody works on, give up hopeless ones, let go of expired files."""
    now = clock.now()
    with system_scope("the sweep looks for exports nobody works on"):
        rows = Export.objects.filter(state__in=Export.OPEN)
        rows.filter(created_at__lte=now - HOPELESS_AFTER).update(
            state=Export.State.FAILED, error=HOPELESS, finished_at=now, expires_at=now + life()
        )
        quiet = rows.filter(worked_at__lte=now - QUIET_FOR).select_for_update(skip_locked=True)
        rung = list(quiet.order_by("worked_at").values_list("id", flat=True)[:SWEEP_MAX])
        Export.objects.filter(id__in=rung, state__in=Export.OPEN).update(worked_at=now)
        expired = list(
            Export.objects.filter(expires_at__lte=now).values_list("id", flat=True)[:SWEEP_MAX]
        )
    for export_id in rung:
        ring(export_id)
    for export_id in expired:
        content.remove(export_id)  # the row last: a crash leaves what the next sweep finds
        with system_scope("the sweep lets go of an export"):
            Export.objects.filter(id=export_id).delete()
