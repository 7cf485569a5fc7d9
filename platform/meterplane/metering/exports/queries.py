"""Reads of exports. Each needs its owner's door; without a tenant, an operator's exports."""

from uuid import UUID

from django.db.models import QuerySet

from meterplane.metering.exports.limits import PAGE_MAX
from meterplane.metering.models import Export

BY_SCHEDULE = "schedule "  # what `requested_by` of those that nobody asked for begins with


def list_exports(
    tenant_id: UUID | None, limit: int = PAGE_MAX, before: UUID | None = None
) -> list[Export]:
    """The newest first, those made by schedules aside; of the page after `before`."""
    rows: QuerySet[Export] = Export.objects.filter(tenant_id=tenant_id).exclude(
        requested_by__startswith=BY_SCHEDULE
    )
    if before is not None:
        rows = rows.filter(id__lt=before)  # ids are in the order of creation
    # One more than a page says whether there is another.
    return list(rows.order_by("-id")[: min(limit, PAGE_MAX + 1)])


def count_open(tenant_id: UUID | None) -> int:
    """How many that somebody asked for are being written."""
    rows: QuerySet[Export] = Export.objects.filter(tenant_id=tenant_id, state__in=Export.OPEN)
    return rows.exclude(requested_by__startswith=BY_SCHEDULE).count()
