"""A line of an invoice down to its requests, oldest first, with what they add up to."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from billing.invoicing.line_events import line_source
from meterplane.kernel.errors import CallerError
from meterplane.metering import counted_events
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.usage_report import key_labels
from meterplane.portal.views.invoice_files import refused_page

PAGE_ROWS = 50


@require_GET
@member_page
def line(request: HttpRequest, acting: Acting, invoice_id: UUID, line_id: UUID) -> HttpResponse:
    """One page of a line's requests; `after` is the last one of the page before."""
    try:
        source = line_source(invoice_id, line_id)
    except CallerError as refused:
        return refused_page(request, acting, invoice_id, refused)
    rows = counted_events.page(source.part, PAGE_ROWS + 1, _after(request))
    labels = key_labels()
    context = {
        "source": source,
        "line": source.line,
        "invoice": source.invoice,
        "quantity": int(source.line.quantity),
        "missing": int(source.line.quantity) - source.units,
        "events": [
            {"event": row, "key_label": labels.get(str(row.key_id), str(row.key_id))}
            for row in rows[:PAGE_ROWS]
        ],
        "next": rows[PAGE_ROWS - 1].request_id if len(rows) > PAGE_ROWS else None,
        "is_first": "after" not in request.GET,
    }
    return render_page(request, acting, "billing", "portal/billing/line.html", context)


def _after(request: HttpRequest) -> UUID | None:
    try:
        return UUID(request.GET["after"]) if "after" in request.GET else None
    except ValueError:
        return None
