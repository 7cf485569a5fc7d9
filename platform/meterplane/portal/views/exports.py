"""Exports of usage: ask for one, watch it being written, download it, call it off.

Every member may look and download; roles that do something with usage may ask for files of it.
"""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from meterplane.kernel.errors import CallerError
from meterplane.metering.exports import serve
from meterplane.metering.exports.queries import list_exports
from meterplane.metering.exports.query import FORMATS, KINDS, ExportQuery, stored_query
from meterplane.metering.exports.request import end_export, find_export, request_export
from meterplane.metering.exports.stream import csv_blocks
from meterplane.metering.models import Export
from meterplane.portal.access import (
    Acting,
    member_action,
    member_page,
    render_dialog,
    render_page,
    require_exporter,
)
from meterplane.portal.export_form import ExportForm, initial
from tenants.queries import list_keys, list_projects
from tenants.scoping import tenant_scope


@require_GET
@member_page
def exports(request: HttpRequest, acting: Acting) -> HttpResponse:
    rows = [_row(each) for each in list_exports(acting.tenant_id)]
    context = {"exports": rows, "is_open": any(row["is_open"] for row in rows)}
    return render_page(request, acting, "exports", "portal/exports/page.html", context)


@require_http_methods(["GET", "POST"])
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponseBase:
    """The form; then the page with the new export in it, or at once the CSV."""
    require_exporter(acting)
    with tenant_scope(acting.tenant_id):
        form = ExportForm(
            request.POST or None,
            initial=initial(dict(request.GET.lists())),
            projects=list(list_projects()),
            keys=list(list_keys()),
        )
    if request.method == "POST" and form.is_valid():
        try:
            return _begin(request, acting, form.query())
        except CallerError as refused:
            form.refuse(refused)
    context = {"form": form, "carried": form["carried"].value()}
    return render_dialog(
        request, acting, "exports", "Export usage", "portal/exports/new.html", context
    )


def _begin(request: HttpRequest, acting: Acting, query: ExportQuery) -> HttpResponseBase:
    if "now" in request.POST and query.format == "csv":
        response = serve.streamed(request, csv_blocks(acting.tenant_id, query))
        response["Content-Type"] = serve.TYPES["csv"]
        serve.attach(response, serve.filename(query, acting.slug))
        return response
    request_export(tenant_id=acting.tenant_id, query=query, requested_by=acting.email)
    messages.success(request, "The export is being written")
    return redirect("portal:exports")


@require_GET
@member_action
def download(request: HttpRequest, acting: Acting, export_id: UUID) -> HttpResponseBase:
    """The file; a download that broke off goes on."""
    try:
        return serve.file_response(request, find_export(acting.tenant_id, export_id), acting.slug)
    except CallerError:
        raise Http404 from None


@require_POST
@member_action
def end(request: HttpRequest, acting: Acting, export_id: UUID) -> HttpResponse:
    """Cancel it, or remove it. One of another organisation is missing, whatever one's role."""
    try:
        find_export(acting.tenant_id, export_id)
        require_exporter(acting)
        left = end_export(acting.tenant_id, export_id)
    except CallerError:
        raise Http404 from None
    messages.success(request, "The export is cancelled" if left else "The export is removed")
    return redirect("portal:exports")


def _row(export: Export) -> dict[str, Any]:
    query = stored_query(export.query)
    return {
        "id": export.id,
        "what": KINDS[query.kind],
        "format": FORMATS[query.format],
        "days": f"{query.first_day:%-d %b %Y} \N{EN DASH} {query.last_day:%-d %b %Y}",
        "filters": ", ".join(
            f"{name} {' or '.join(values) or 'none'}" for name, values in query.filters.items()
        ),
        "state": export.state,
        "is_open": export.state in Export.OPEN,
        "days_done": export.days_done,
        "days_total": export.days_total,
        "rows": export.rows,
        "size": filesizeformat(export.bytes),
        "error": export.error,
        "created_at": export.created_at,
        "expires_at": export.expires_at,
        "requested_by": export.requested_by,
        "url": reverse("portal:export-file", args=[export.id]) if export.state == "done" else "",
    }
