"""What was used: the last events of all organisations, the same by what served them, and the
journal segments they came in."""

import csv
from datetime import timedelta
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.money import nano_to_text
from meterplane.metering import labels
from meterplane.metering.models import JournalSegment
from meterplane.metering.queries import RequestRow, recent_requests, request_by_id
from meterplane.metering.usage_query import UsageQuery
from meterplane.metering.usage_table import UsageRow, run
from tenants.models import ApiKey, Organisation

EVENTS_SHOWN = 50
HEADERS = [
    "Admitted (UTC)", "Organisation", "Request", "Model", "Surface", "Key", "Status", "In", "Out",
    "Latency", "Cost",
]  # fmt: skip
DAYS_SUMMED = 30
SPLITS: dict[str, str] = {
    "deployment": "Deployment",
    "model": "Model",
    "surface": "Surface",
    "service_tier": "Tier",
    "priority": "Priority",
    "region": "Region",
    "gpu_type": "GPU type",
    "status": "Status",
}
SUM_HEADERS = ["Requests", "Share", "Not OK", "Tokens in", "Tokens out", "Cost"]
CSV_HEADER = ["requests", "share", "not_ok", "tokens_in", "tokens_out", "cost", "currency"]


@admin.register(JournalSegment, site=site)
class SegmentPage(ReadOnly):
    """Segments that were taken in; the shipper deletes a file only once it is here."""

    list_display = ("segment_id", "gateway", "events", "inserted", "ingested_at")
    list_filter = ("gateway",)
    search_fields = ("segment_id",)
    ordering = ("-ingested_at",)


def usage_events(request: HttpRequest) -> TemplateResponse:
    """The newest events, a page at a time, or the one that is asked for. Not a changelist: the
    admin cannot hold a table whose primary key is composite."""
    before, asked = request.GET.get("before", ""), _uuid(request.GET.get("request", ""))
    if asked is not None:
        rows = [row for row in [request_by_id(asked)] if row is not None]
    else:
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
        "newest_url": here if before or asked else "",
    }
    return TemplateResponse(request, "console/usage_events.html", context)


def usage_by_split(request: HttpRequest) -> HttpResponse:
    """Sums of the last days over all organisations, as a table and as its CSV."""
    asked = request.GET.get("by", "")
    split = next((name for name in SPLITS if name == asked), next(iter(SPLITS)))
    now = clock.now()
    asked_for = UsageQuery(now - timedelta(days=DAYS_SUMMED), now, group_by=(split,))
    rows = run(asked_for).rows
    if request.GET.get("format") == "csv":
        return _csv(split, rows)
    here = reverse("console:usage_by")
    context = {
        **site.each_context(request),
        "title": f"Usage of the last {DAYS_SUMMED} days by {SPLITS[split].lower()}",
        "table": {
            "headers": [SPLITS[split], *SUM_HEADERS],
            "rows": _sums(split, rows, text=True),
        },
        "choices": [
            {"label": label, "url": f"{here}?by={name}", "current": name == split}
            for name, label in SPLITS.items()
        ],
        "csv_url": f"{here}?by={split}&format=csv",
    }
    return TemplateResponse(request, "console/usage_by.html", context)


def usage_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [
        path("usage/", site.admin_view(usage_events), name="usage_events"),
        path("usage-by/", site.admin_view(usage_by_split), name="usage_by"),
    ]


def _sums(split: str, sums: tuple[UsageRow, ...], *, text: bool) -> list[list[str]]:
    """The rows of table and CSV; as `text`, numbers are grouped and costs carry their sign."""
    names = labels.of_split(split)
    whole = sum(each.events for each in sums)
    rows = []
    for each in sums:
        counts = (each.events - each.events_ok, each.tokens_in, each.tokens_out)
        rows.append(
            [
                names.get(each.groups[0], each.groups[0]),
                f"{each.events:,}" if text else str(each.events),
                amounts.percent(each.events, whole),
                *(f"{count:,}" if text else str(count) for count in counts),
                shown.nano(each.cost_nano, each.currency) if text else nano_to_text(each.cost_nano),
            ]
        )
    return rows


def _csv(split: str, sums: tuple[UsageRow, ...]) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-by-{split}.csv"'
    response["Cache-Control"] = "no-store"
    writer = csv.writer(response, lineterminator="\n")
    writer.writerow([split, *CSV_HEADER])
    for each, row in zip(sums, _sums(split, sums, text=False), strict=True):
        writer.writerow([*row, each.currency])
    return response


def _cells(row: RequestRow, names: dict[UUID, str], keys: dict[UUID, str]) -> list[str]:
    return [
        shown.utc(row.event_at),
        names.get(row.tenant_id, str(row.tenant_id)),
        str(row.request_id),
        f"{row.model} @ {row.deployment}" if row.deployment else row.model,
        labels.surface(row.surface) + (" (batch)" if row.service_tier == "batch" else ""),
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
