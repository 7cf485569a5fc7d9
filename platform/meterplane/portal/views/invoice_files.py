"""An invoice and its credit notes as files: PDF, usage CSV, and the events of a line."""

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_GET

from billing.invoicing import invoice_csv
from billing.invoicing.documents import credit_note, invoice_document
from billing.invoicing.event_csv import events_csv
from billing.invoicing.printed import printed_credit_note
from billing.payments.owed import printed_to_pay
from meterplane.kernel.errors import CallerError
from meterplane.metering.exports import serve
from meterplane.portal.access import Acting, member_action, member_page, render_page
from tenants.scoping import tenant_scope


@require_GET
@member_page
def pdf(request: HttpRequest, acting: Acting, invoice_id: UUID) -> HttpResponse:
    """The invoice to print and to keep."""
    content = printed_to_pay(invoice_id)
    if content is None:
        raise Http404
    return _attached(content, f"{_name(invoice_id)}.pdf")


@require_GET
@member_page
def credit_note_pdf(request: HttpRequest, acting: Acting, note_id: UUID) -> HttpResponse:
    """A credit note to print and to keep."""
    note, content = credit_note(note_id), printed_credit_note(note_id)
    if note is None or content is None:
        raise Http404
    return _attached(content, f"{note.number}.pdf")


@require_GET
@member_action
def usage_csv(request: HttpRequest, acting: Acting, invoice_id: UUID) -> HttpResponseBase:
    """Who used what is on the invoice, streamed."""
    with tenant_scope(acting.tenant_id):
        name = _name(invoice_id)
    try:
        blocks = invoice_csv.usage_csv(acting.tenant_id, invoice_id)
    except CallerError as refused:
        return refused_page(request, acting, invoice_id, refused)
    response = serve.streamed(request, blocks)
    response["Content-Type"] = serve.TYPES["csv"]
    serve.attach(response, f"{name}-usage.csv")
    return response


@require_GET
@member_action
def line_events_csv(
    request: HttpRequest, acting: Acting, invoice_id: UUID, line_id: UUID
) -> HttpResponseBase:
    """The events of a line, streamed."""
    with tenant_scope(acting.tenant_id):
        name = _name(invoice_id)
    try:
        blocks = events_csv(acting.tenant_id, invoice_id, line_id)
    except CallerError as refused:
        return refused_page(request, acting, invoice_id, refused)
    response = serve.streamed(request, blocks)
    response["Content-Type"] = serve.TYPES["csv"]
    serve.attach(response, f"{name}-line-{line_id}.csv")
    return response


def refused_page(
    request: HttpRequest, acting: Acting, invoice_id: UUID, refused: CallerError
) -> HttpResponse:
    """What was asked for cannot be shown, and why. What is not there is missing."""
    if refused.status == 404:
        raise Http404
    with tenant_scope(acting.tenant_id):
        document = invoice_document(invoice_id)
        context = {"document": document, "refused": refused}
        response = render_page(request, acting, "billing", "portal/billing/refused.html", context)
    response.status_code = refused.status
    return response


def _name(invoice_id: UUID) -> str:
    document = invoice_document(invoice_id)
    if document is None:
        raise Http404
    return document.invoice.number or f"draft-{document.invoice.period_start:%Y-%m-%d}"


def _attached(content: bytes, name: str) -> HttpResponse:
    response = HttpResponse(content, content_type="application/pdf")
    serve.attach(response, name)
    return response
