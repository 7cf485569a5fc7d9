"""Events that did not pass the gateway: found by organisation, source and id, and each with the
overlays over it. To look at: corrections are made through the control API, with their reason.
"""

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from meterplane.console import shown
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.queries import (
    Overlay,
    ShownEvent,
    event_by_receipt,
    history_of,
    list_events,
)
from tenants.models import Organisation

EVENTS_SHOWN = 50
DATA_CHARS_SHOWN = 80  # in a list; its own page has all of it
HEADERS = ["Received (UTC)", "Organisation", "Source", "Id", "Type", "Time (UTC)", "Data", "Counts"]
FACT_HEADERS = ["What", "As it was sent", "What holds"]
OVERLAY_HEADERS = ["#", "What", "When (UTC)", "By", "Reason", "Time (UTC)", "Data", "Digests"]
SEARCHES = {"organisation": "Organisation", "source": "Source", "id": "Id"}


def external_events(request: HttpRequest) -> TemplateResponse:
    """The newest events that a search leaves, a page at a time."""
    searched = {name: request.GET.get(name, "").strip()[:256] for name in SEARCHES}
    searched = {name: text.replace("\0", "") for name, text in searched.items()}
    rows = _found(searched, _uuid(request.GET.get("before", "")))
    here = reverse("console:external_events")
    older = ""
    if len(rows) == EVENTS_SHOWN:
        query = request.GET.copy()
        query["before"] = str(rows[-1].event.id)
        older = f"{here}?{query.urlencode()}"
    context = {
        **site.each_context(request),
        "title": "External events",
        "tables": [{"headers": HEADERS, "rows": [_cells(row) for row in rows]}],
        "searches": [
            {"name": name, "label": label, "value": searched[name]}
            for name, label in SEARCHES.items()
        ],
        "older_url": older,
        "back_url": here if request.GET else "",
        "back_label": "All",
    }
    return TemplateResponse(request, "console/tables.html", context)


def external_event(request: HttpRequest, receipt_id: UUID) -> TemplateResponse:
    """One event: as it was sent, what holds, and how it came to that."""
    try:
        it = event_by_receipt(receipt_id)
    except CallerError as missing:
        raise Http404(missing.message) from None
    overlays = [_overlay_cells(each) for each in history_of(it.event)]
    context = {
        **site.each_context(request),
        "title": f"Event {it.event.event_id} of {it.event.source}",
        "tables": [
            {"title": "Event", "headers": FACT_HEADERS, "rows": _facts(it)},
            {"title": "Overlays, the first one first", "headers": OVERLAY_HEADERS,
             "rows": overlays},
        ],
        "back_url": reverse("console:external_events"),
    }  # fmt: skip
    return TemplateResponse(request, "console/tables.html", context)


def external_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [
        path("external-events/", site.admin_view(external_events), name="external_events"),
        path(
            "external-events/<uuid:receipt_id>/",
            site.admin_view(external_event),
            name="external_event",
        ),
    ]


def _found(searched: dict[str, str], before: UUID | None) -> list[ShownEvent]:
    narrowed: dict[str, Any] = {
        "source": searched["source"] or None,
        "event_id": searched["id"] or None,
        "before": before,
    }
    if searched["organisation"]:
        slug = searched["organisation"]
        tenant_id = Organisation.objects.filter(slug=slug).values_list("id", flat=True).first()
        if tenant_id is None:
            return []
        narrowed["tenant_id"] = tenant_id
    return list_events(narrowed, EVENTS_SHOWN)


def _cells(row: ShownEvent) -> list[str]:
    sent = row.event
    data = row.data
    return [
        shown.utc(sent.received_at),
        sent.organisation,
        sent.source,
        format_html(
            '<a class="text-primary-600" href="{}">{}</a>',
            reverse("console:external_event", args=[sent.id]),
            sent.event_id,
        ),
        sent.type,
        shown.utc(row.at),
        data if len(data) <= DATA_CHARS_SHOWN else f"{data[:DATA_CHARS_SHOWN]}…",
        _counts(row),
    ]


def _counts(row: ShownEvent) -> str:
    if row.overlays == 0:
        return "yes" if row.counts else "no: its backfill is not closed"
    times = "once" if row.overlays == 1 else f"{row.overlays} times"
    return f"{'yes' if row.counts else 'no'}, corrected {times}"


def _facts(it: ShownEvent) -> list[list[str]]:
    sent = it.event
    same = amounts.NOTHING
    backfill = str(sent.backfill_id) if sent.backfill_id else amounts.NOTHING
    return [
        ["Receipt", str(sent.id), same],
        ["Organisation, project", f"{sent.organisation}, {sent.project}", same],
        ["Source, id", f"{sent.source}, {sent.event_id}", same],
        ["Type", sent.type, same],
        ["Time (UTC)", shown.utc(sent.event_at), shown.utc(it.at)],
        ["Data", sent.data, it.data],
        ["Counts", "yes", _counts(it)],
        ["Other attributes", sent.attributes, same],
        ["Backfill", backfill, same],
        ["Received (UTC), by", f"{shown.utc(sent.received_at)}, {sent.received_by}", same],
        ["Digest", sent.digest.hex(), same],
    ]


def _overlay_cells(each: Overlay) -> list[str]:
    before, after = (
        digest.hex()[:12] if digest else amounts.NOTHING
        for digest in (each.digest_before, each.digest_after)
    )
    by = f" by backfill {each.backfill_id}" if each.backfill_id else ""
    return [
        str(each.number),
        each.kind + by,
        shown.utc(each.made_at),
        each.made_by,
        each.reason,
        shown.utc(each.at),
        each.data,
        f"{before} → {after}",
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
