"""What was used: the last events of all organisations, and the journal segments they came in."""

from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.metering.models import JournalSegment
from meterplane.metering.queries import RequestRow, recent_requests
from tenants.models import ApiKey, Organisation

EVENTS_SHOWN = 50
HEADERS = [
    "Admitted (UTC)", "Organisation", "Request", "Model", "Key", "Status", "In", "Out", "Latency",
    "Cost",
]  # fmt: skip


@admin.register(JournalSegment, site=site)
class SegmentPage(ReadOnly):
    """Segments that were taken in; the shipper deletes a file only once it is here."""

    list_display = ("segment_id", "gateway", "events", "inserted", "ingested_at")
    list_filter = ("gateway",)
    search_fields = ("segment_id",)
    ordering = ("-ingested_at",)


def usage_events(request: HttpRequest) -> TemplateResponse:
    """The newest events, a page at a time. Not a changelist: the admin cannot hold a table whose
    primary key is composite."""
    before = request.GET.get("before", "")
    rows = recent_requests(EVENTS_SHOWN, _uuid(before))
    names = dict(Organisation.objects.values_list("id", "name"))
    keys = {
        key.id: f"{key.name} …{key.last4}"
        for key in ApiKey.objects.filter(id__in={row.key_id for row in rows})
    }
    older = rows[-1].request_id if len(rows) == EVENTS_SHOWN else None
    here = reverse("console:usage_events")
    context = {
        **site.each_context(request),
        "title": "Usage events",
        "table": {"headers": HEADERS, "rows": [_cells(row, names, keys) for row in rows]},
        "older_url": f"{here}?before={older}" if older else "",
        "newest_url": here if before else "",
    }
    return TemplateResponse(request, "console/usage_events.html", context)


def usage_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [path("usage/", site.admin_view(usage_events), name="usage_events")]


def _cells(row: RequestRow, names: dict[UUID, str], keys: dict[UUID, str]) -> list[str]:
    return [
        shown.utc(row.event_at),
        names.get(row.tenant_id, str(row.tenant_id)),
        str(row.request_id),
        row.model,
        keys.get(row.key_id, str(row.key_id)),
        row.status,
        f"{row.tokens_in:,}",
        f"{row.tokens_out:,}",
        amounts.milliseconds(row.total_ms),
        shown.nano(row.cost_nano, row.currency),
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
