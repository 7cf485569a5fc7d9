"""How far invoices are on their way to the payment provider, on a page that refreshes itself.

What it shows is counted in the tables each time, in one statement (`billing.payments.progress`).
"""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from billing.invoicing.models import Invoice
from billing.payments.progress import Progress, progress, why_parked
from meterplane.console.owed import NOTE_ID
from meterplane.console.site import site
from meterplane.kernel import amounts

POLL_S = 2
POLL_IDLE_S = 15  # nothing waits: what is closed then is seen a little later
PARKED_SHOWN = 20


def collecting(request: HttpRequest) -> TemplateResponse:
    """Counts, rate, time left; then what is parked, each with the way to what differs."""
    now = progress()
    context = {
        **site.each_context(request),
        "title": "Collecting",
        "progress": now,
        "figures": _figures(now),
        "poll_s": POLL_S if now.waiting else POLL_IDLE_S,
        "parked": _parked() if now.parked or now.parked_before else [],
        "parked_url": f"{reverse('console:invoicing_invoice_changelist')}"
        "?collection_state__exact=parked",
        "shown": PARKED_SHOWN,
    }
    return TemplateResponse(request, "console/collecting.html", context)


def collecting_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [path("collecting/", site.admin_view(collecting), name="collecting")]


def _figures(now: Progress) -> list[dict[str, str]]:
    before = f"{now.parked_before:,} more of earlier days" if now.parked_before else ""
    found = [
        {"label": "Done", "value": f"{now.done:,}", "note": f"of {now.total:,}"},
        {"label": "Waiting", "value": f"{now.waiting:,}", "note": _at_it(now)},
        {"label": "Parked", "value": f"{now.parked:,}", "note": before or "need a person"},
    ]
    if now.waiting:
        found += [
            {"label": "Rate", "value": now.rate, "note": "over the last minute"},
            {"label": "Time left", "value": now.left, "note": "at this rate"},
        ]
    return found


def _at_it(now: Progress) -> str:
    if not now.waiting:
        return "nothing to do"
    return f"{now.in_hand:,} in hand now" if now.in_hand else "nobody is at it now"


def _parked() -> list[dict[str, Any]]:
    rows = (
        Invoice.objects.filter(collection_state=Invoice.Collection.PARKED)
        .select_related("tenant")
        .order_by("-created_at")[:PARKED_SHOWN]
    )
    return [
        {
            "organisation": row.tenant.name,
            "invoice": str(row),
            "total": amounts.minor(row.total_minor, row.currency),
            "why": why_parked(row.collection_note) or "not said",
            "url": f"{reverse('console:invoicing_invoice_change', args=[row.id])}#{NOTE_ID}",
        }
        for row in rows
    ]
