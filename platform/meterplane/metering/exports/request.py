"""Ask for an export, call it off, or let its file go.

Guarantees: an export holds what was taken in when it was asked for and nothing later, however long
it takes. Who asks has been checked: an organisation's export is made inside its own door, one over
all of them (`tenant_id` None) is an operator's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.exports import content
from meterplane.metering.exports.doorbell import ring
from meterplane.metering.exports.limits import OPEN_PER_OWNER_MAX
from meterplane.metering.exports.queries import count_open
from meterplane.metering.exports.query import ExportQuery
from meterplane.metering.models import Export
from tenants.scoping import system_scope, tenant_scope


@contextmanager
def door_of(tenant_id: UUID | None) -> Iterator[None]:
    """The door of an export's owner: an organisation's, or the system's for an operator."""
    with tenant_scope(tenant_id) if tenant_id else system_scope("an operator's exports"):
        yield


def request_export(*, tenant_id: UUID | None, query: ExportQuery, requested_by: str) -> Export:
    """Store what somebody asks for and ring. Raises `CallerError` `too_many_exports`."""
    with door_of(tenant_id):
        if count_open(tenant_id) >= OPEN_PER_OWNER_MAX:
            raise CallerError(
                "too_many_exports",
                f"{OPEN_PER_OWNER_MAX} exports are being written; wait for one, or cancel one.",
                status=409,
            )
        return make_export(tenant_id=tenant_id, query=query, requested_by=requested_by)


def make_export(*, tenant_id: UUID | None, query: ExportQuery, requested_by: str) -> Export:
    """Store an export and ring for it, however many there are: schedules bound themselves."""
    with door_of(tenant_id), connection.cursor() as cursor:
        # The database's clock, as of events; its transactions of before are waited for.
        cursor.execute("SELECT clock_timestamp()")
        made: Export = Export.objects.create(
            tenant_id=tenant_id,
            kind=query.kind,
            format=query.format,
            query=query.as_json(),
            ingested_until=cursor.fetchone()[0],
            days_total=query.days,
            requested_by=requested_by,
        )
        transaction.on_commit(lambda: ring(made.id), robust=True)
    return made


def find_export(tenant_id: UUID | None, export_id: UUID) -> Export:
    """An export of this owner. Raises `CallerError` `export_not_found`; another's is missing."""
    with door_of(tenant_id):
        found: Export | None = Export.objects.filter(tenant_id=tenant_id, id=export_id).first()
    if found is None:
        raise CallerError("export_not_found", f"There is no export {export_id}.", status=404)
    return found


def end_export(tenant_id: UUID | None, export_id: UUID) -> Export | None:
    """Cancel one that is being written, and return it; remove one that has ended, for None.

    Raises `CallerError` `export_not_found`.
    """
    found = find_export(tenant_id, export_id)
    now = clock.now()
    with door_of(tenant_id):
        cancelled = Export.objects.filter(id=found.id, state__in=Export.OPEN).update(
            state=Export.State.CANCELLED, finished_at=now, expires_at=now + life()
        )
    content.remove(found.id)
    if cancelled:
        return find_export(tenant_id, export_id)
    with door_of(tenant_id):
        Export.objects.filter(id=found.id).delete()
    return None


def life() -> timedelta:
    """How long a file is kept."""
    return timedelta(days=settings.EXPORT_DAYS)
