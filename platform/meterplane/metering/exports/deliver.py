"""Send what schedules say to their buckets: once per period, again if usage of it came late.

A period is `waiting` until its export is asked for, `exporting` while a worker writes it, `sending`
until object and manifest are in the bucket, and then `delivered`. Each step is a transaction that
holds the delivery's row, and each may be repeated: keys follow from schedule and period, an export
of the same usage is the same bytes, and the manifest, which says what the object must be, is sent
last. What fails is told in a sentence and tried again with growing pauses, for ever.

Late usage is seen by the number of events: sums only grow. It is read before the export begins, so
what it counts is in the export. An object whose bytes change is a new revision.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from uuid import UUID

import msgspec
from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.money import nano_to_text
from meterplane.metering.exports import content
from meterplane.metering.exports.bucket import Bucket
from meterplane.metering.exports.destination import query_of
from meterplane.metering.exports.limits import (
    BACKOFF_MAX,
    BACKOFF_MIN,
    PERIODS_PER_SWEEP_MAX,
    REVISE_FOR,
    SWEEP_MAX,
)
from meterplane.metering.exports.periods import due_at, floor, folder, next_start
from meterplane.metering.exports.queries import BY_SCHEDULE
from meterplane.metering.exports.request import make_export
from meterplane.metering.models import Export, ExportDelivery, ExportSchedule
from tenants.scoping import system_scope

log = logging.getLogger(__name__)
State = ExportDelivery.State


def deliver_due() -> None:
    """Begin periods that are over, look for late usage, and bring what is open a step on."""
    for schedule_id in _active():
        _begin_periods(schedule_id)
        _look_for_late_usage(schedule_id)
    now = clock.now()
    with system_scope("deliveries that are due"):
        due = list(
            ExportDelivery.objects.exclude(state=State.DELIVERED)
            .filter(try_at__lte=now, schedule__is_active=True)
            .order_by("try_at")
            .values_list("schedule_id", "period_start")[:SWEEP_MAX]
        )
    for schedule_id, period_start in due:
        while deliver_step(schedule_id, period_start):
            pass


def deliver_step(schedule_id: UUID, period_start: datetime) -> bool:
    """One step of one delivery. True if the next can be taken now."""
    with system_scope("a worker sends an export"):
        row = (
            ExportDelivery.objects.filter(schedule_id=schedule_id, period_start=period_start)
            .exclude(state=State.DELIVERED)
            .select_for_update(skip_locked=True, of=("self",))
            .select_related("schedule__destination", "export")
            .first()
        )
        if row is None:
            return False
        try:
            return _STEPS[row.state](row)
        except (CallerError, WorldError) as failed:
            _again_later(row, failed.message)
            return False


def _active() -> list[UUID]:
    with system_scope("schedules of exports"):
        return list(ExportSchedule.objects.filter(is_active=True).values_list("id", flat=True))


def _begin_periods(schedule_id: UUID) -> None:
    with system_scope("periods that are over"):
        row = ExportSchedule.objects.select_for_update().get(id=schedule_id)
        now = clock.now()
        for _ in range(PERIODS_PER_SWEEP_MAX):
            end = next_start(row.every, row.next_period)
            if due_at(row.every, row.next_period) > now:
                break
            ExportDelivery.objects.get_or_create(
                schedule_id=row.id,
                period_start=row.next_period,
                defaults={"period_end": end, "try_at": now},
            )
            row.next_period = end
        row.save(update_fields=["next_period"])


def _look_for_late_usage(schedule_id: UUID) -> None:
    """Deliver again what has more events now than it had."""
    with system_scope("late usage"):
        row = ExportSchedule.objects.get(id=schedule_id)
        since = floor(row.every, clock.now() - REVISE_FOR)
        delivered = ExportDelivery.objects.filter(
            schedule_id=schedule_id, state=State.DELIVERED, period_start__gte=since
        )
        for each in delivered.select_for_update(skip_locked=True):
            if _events(row, each.period_start, each.period_end) > each.events_seen:
                each.state, each.try_at, each.attempts = State.WAITING, clock.now(), 0
                each.save(update_fields=["state", "try_at", "attempts"])


def _events(schedule: ExportSchedule, start: datetime, end: datetime) -> int:
    """Events of the period over the schedule's organisations, whatever its filters."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(sum(events), 0) FROM usage_hour WHERE hour >= %s AND hour < %s"
            " AND (%s::uuid IS NULL OR tenant_id = %s)",
            [start, end, schedule.tenant_id, schedule.tenant_id],
        )
        return int(cursor.fetchone()[0])


def _ask(row: ExportDelivery) -> bool:
    schedule = row.schedule
    row.events_seen = _events(schedule, row.period_start, row.period_end)
    row.export = make_export(
        tenant_id=schedule.tenant_id,
        query=query_of(schedule, row.period_start),
        requested_by=f"{BY_SCHEDULE}{schedule.name}",
    )
    row.state = State.EXPORTING
    row.save(update_fields=["events_seen", "export", "state"])
    return True


def _wait(row: ExportDelivery) -> bool:
    if row.export is None:  # its file was let go of before it could be sent
        row.state = State.WAITING
        row.save(update_fields=["state"])
        return True
    if row.export.state in Export.OPEN:
        return False
    if row.export.state != Export.State.DONE:
        said = row.export.error or f"Its export is {row.export.state}."
        row.state, row.export = State.WAITING, None
        row.save(update_fields=["state", "export"])
        raise WorldError("export_failed", said)
    row.state = State.SENDING
    row.save(update_fields=["state"])
    return True


def _send(row: ExportDelivery) -> bool:
    export = row.export
    if export is None:
        return _wait(row)
    changed = export.sha256 != row.sha256
    row.revision += 1 if changed else 0
    row.rows, row.bytes, row.sha256 = export.rows, export.bytes, export.sha256
    row.object_key = object_key(row)
    try:
        with content.opened(export.id) as source:
            if changed:
                bucket = Bucket(row.schedule.destination)
                bucket.put(row.object_key, source)
                failpoint("export.delivery.after_object")
                bucket.put(manifest_key(row), BytesIO(manifest(row, export)))
                failpoint("export.delivery.after_manifest")
    except FileNotFoundError:
        row.refresh_from_db()
        row.export = None
        return _wait(row)
    row.state, row.export, row.error, row.attempts = State.DELIVERED, None, "", 0
    row.delivered_at = clock.now()
    row.save()
    Export.objects.filter(id=export.id).delete()
    content.remove(export.id)
    return False


_STEPS: dict[str, Callable[[ExportDelivery], bool]] = {
    State.WAITING: _ask,
    State.EXPORTING: _wait,
    State.SENDING: _send,
}


def object_key(row: ExportDelivery) -> str:
    """Where the object of a period is: of schedule and period alone."""
    schedule = row.schedule
    place = (schedule.destination.prefix, schedule.kind, folder(schedule.every, row.period_start))
    return "/".join(filter(None, (*place, f"{schedule.name}.{schedule.format}")))


def manifest_key(row: ExportDelivery) -> str:
    """Beside its object."""
    return f"{object_key(row).rsplit('/', 1)[0]}/{row.schedule.name}_manifest.json"


def manifest(row: ExportDelivery, export: Export) -> bytes:
    """What the object of a period must be. Equal for equal bytes and revision."""
    said = {
        "schedule": row.schedule.name,
        "kind": export.kind,
        "format": export.format,
        "period_start": row.period_start,
        "period_end": row.period_end,
        "object": row.object_key,
        "revision": row.revision,
        "rows": export.rows,
        "bytes": export.bytes,
        "sha256": export.sha256,
        "cost": {currency: nano_to_text(nano) for currency, nano in sorted(export.sums.items())},
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n"


def _again_later(row: ExportDelivery, said: str) -> None:
    pause = min(BACKOFF_MIN * 2 ** min(row.attempts, 10), BACKOFF_MAX)
    log.warning("%s of %s: %s", row.schedule.name, row.period_start, said)
    ExportDelivery.objects.filter(
        schedule_id=row.schedule_id, period_start=row.period_start
    ).update(error=said, attempts=row.attempts + 1, try_at=clock.now() + pause)
