"""Invoices as an operator reads them: lines and taxes, files, and the events behind each line.

An organisation is its slug; an invoice of another one is missing, as one that never was. Files come
as CSV or PDF whatever a client accepts. Money is a decimal text beside its currency.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing import invoice_csv
from billing.invoicing.documents import InvoiceDocument, invoice_document
from billing.invoicing.event_csv import events_csv
from billing.invoicing.line_events import line_source
from billing.invoicing.queries import TaxView
from billing.payments.owed import printed_to_pay
from meterplane.api import invoice_shapes as shapes
from meterplane.api.exports import AnyBytes
from meterplane.api.organisations import named_organisation
from meterplane.api.pricing_shapes import line_json
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from meterplane.metering import counted_events
from meterplane.metering.exports import serve
from meterplane.metering.queries import PAGE_ROWS_MAX
from tenants.scoping import tenant_scope

PAGE_DEFAULT = 100
PAGE = [
    OpenApiParameter("limit", OpenApiTypes.INT, description=f"At most {PAGE_ROWS_MAX}."),
    OpenApiParameter("cursor", OpenApiTypes.UUID, description="next_cursor of the page before."),
]
CSV = {(200, "text/csv"): OpenApiTypes.STR}


class InvoiceDetail(APIView):
    """One invoice."""

    @extend_schema(operation_id="invoice", responses=shapes.InvoiceDetailOut)
    def get(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Its lines, taxes, parties and credit notes, and what is still due."""
        with tenant_scope(named_organisation(slug).id):
            document = _document(invoice_id)
            return Response(shapes.InvoiceDetailOut(_shown(document)).data)


class InvoiceCSV(APIView):
    """The lines of an invoice as a file."""

    renderer_classes = (AnyBytes,)

    @extend_schema(operation_id="invoice_csv", responses=CSV)
    def get(self, request: Request, slug: str, invoice_id: UUID) -> HttpResponseBase:
        """One row a line, and one for each tax on top: the amounts add up to the total."""
        with tenant_scope(named_organisation(slug).id):
            name = _name(_document(invoice_id))
            content = invoice_csv.lines_csv(invoice_id)
        return file_response(f"{name}.csv", serve.TYPES["csv"], (content or "").encode())


class InvoiceUsageCSV(APIView):
    """The usage behind an invoice as a file."""

    renderer_classes = (AnyBytes,)

    @extend_schema(operation_id="invoice_usage_csv", responses=CSV)
    def get(self, request: Request, slug: str, invoice_id: UUID) -> HttpResponseBase:
        """By line, day, project and key: the quantities add up to those of the lines."""
        tenant_id = named_organisation(slug).id
        with tenant_scope(tenant_id):
            name = _name(_document(invoice_id))
        blocks = invoice_csv.usage_csv(tenant_id, invoice_id)
        return streamed_csv(request, f"{name}-usage.csv", blocks)


class InvoicePDF(APIView):
    """An invoice as a document."""

    renderer_classes = (AnyBytes,)

    @extend_schema(
        operation_id="invoice_pdf", responses={(200, "application/pdf"): OpenApiTypes.BINARY}
    )
    def get(self, request: Request, slug: str, invoice_id: UUID) -> HttpResponseBase:
        """The PDF, with usage by project and key."""
        with tenant_scope(named_organisation(slug).id):
            name = _name(_document(invoice_id))
            content = printed_to_pay(invoice_id)
        return file_response(f"{name}.pdf", "application/pdf", content or b"")


class LineEvents(APIView):
    """The events behind a line of an invoice."""

    @extend_schema(
        operation_id="invoice_line_events", parameters=PAGE, responses=shapes.LineEventsOut
    )
    def get(self, request: Request, slug: str, invoice_id: UUID, line_id: UUID) -> Response:
        """Exactly the requests it adds up from, oldest first, with what each adds.

        `agrees` says whether they add up to the line's quantity. Events of archived days answer
        409 `events_archived`: less than all is never shown as all.
        """
        limit, cursor = page_asked(request)
        with tenant_scope(named_organisation(slug).id):
            source = line_source(invoice_id, line_id)
            rows = counted_events.page(source.part, limit, cursor)
        shown = {
            "line": line_id,
            "invoice": invoice_id,
            "meter": source.line.meter,
            "quantity": int(source.line.quantity),
            "events_total": source.events,
            "units_total": source.units,
            "agrees": source.agrees,
            "exact": source.is_exact,
            "events": rows,
            "next_cursor": rows[-1].request_id if len(rows) == limit else None,
        }
        return Response(shapes.LineEventsOut(shown).data)


class LineEventsCSV(APIView):
    """The events behind a line of an invoice as a file."""

    renderer_classes = (AnyBytes,)

    @extend_schema(operation_id="invoice_line_events_csv", responses=CSV)
    def get(self, request: Request, slug: str, invoice_id: UUID, line_id: UUID) -> HttpResponseBase:
        """All of them, streamed, oldest first."""
        tenant_id = named_organisation(slug).id
        blocks = events_csv(tenant_id, invoice_id, line_id)
        return streamed_csv(request, f"{slug}-line-{line_id}-events.csv", blocks)


def page_asked(request: Request) -> tuple[int, UUID | None]:
    """`limit` and `cursor` of an address. Raises `CallerError` naming which is wrong."""
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_ROWS_MAX):
        raise CallerError(
            "invalid_limit", f"A limit is a number from 1 to {PAGE_ROWS_MAX}.", field="limit"
        )
    try:
        cursor = request.query_params.get("cursor")
        return int(text), UUID(cursor) if cursor else None
    except ValueError:
        raise CallerError(
            "invalid_cursor", "A cursor is the next_cursor of the page before.", field="cursor"
        ) from None


def file_response(name: str, kind: str, content: bytes) -> HttpResponse:
    """A file to save."""
    response = HttpResponse(content, content_type=kind)
    serve.attach(response, name)
    return response


def streamed_csv(request: Request, name: str, blocks: Iterator[bytes]) -> HttpResponseBase:
    """A CSV to save, as it is made."""
    response = serve.streamed(request._request, blocks)
    response["Content-Type"] = serve.TYPES["csv"]
    serve.attach(response, name)
    return response


def _document(invoice_id: UUID) -> InvoiceDocument:
    document = invoice_document(invoice_id)
    if document is None:
        raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
    return document


def _name(document: InvoiceDocument) -> str:
    invoice = document.invoice
    return invoice.number or f"draft-{invoice.period_start:%Y-%m-%d}"


def _shown(document: InvoiceDocument) -> dict[str, Any]:
    invoice, currency = document.invoice, document.invoice.currency

    def amount(amount_minor: int) -> str:
        return minor_to_text(amount_minor, currency)

    return {
        "id": invoice.id,
        "number": invoice.number or None,
        "kind": invoice.kind,
        "status": invoice.status,
        "currency": currency,
        "subtotal": amount(document.subtotal_minor),
        "tax": amount(document.tax_exclusive_minor),
        "tax_included": amount(document.tax_inclusive_minor),
        "total": amount(invoice.total_minor),
        "credited": amount(document.credited_minor),
        "due": amount(document.due_minor),
        "tax_note": document.tax_note,
        "period_start": invoice.period_start,
        "period_end": invoice.period_end,
        "finalised_at": invoice.finalised_at,
        "paid_at": invoice.paid_at,
        "hosted_url": invoice.hosted_url,
        "content_hash": invoice.content_hash,
        "purchase_order": document.buyer.purchase_order,
        "buyer": document.buyer,
        "seller": document.seller,
        "lines": [line_json(line, currency) for line in document.lines],
        "taxes": [_tax(tax, currency) for tax in document.taxes],
        "credit_notes": [
            {"id": note.id, "number": note.number, "total": amount(note.total_minor)}
            for note in document.credit_notes
        ],
    }


def _tax(tax: TaxView, currency: str) -> dict[str, Any]:
    return {
        "name": tax.name,
        "percentage": tax.percentage,
        "mode": tax.mode,
        "note": tax.note,
        "country": tax.country,
        "taxable": minor_to_text(tax.taxable_minor, currency),
        "amount": minor_to_text(tax.amount_minor, currency),
    }
