"""Credit notes, taxes and billing details: what an operator writes of invoices."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing import taxation
from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.documents import CreditNoteView, credit_note, credit_notes
from billing.invoicing.models import AssignedTax, TaxedBy, TaxRate
from billing.invoicing.parties import details, set_details
from billing.invoicing.printed import printed_credit_note
from billing.invoicing.provider_tax import is_computed_by_stripe
from billing.invoicing.tax_choice import choose_taxes
from meterplane.api import invoice_shapes as shapes
from meterplane.api.exports import AnyBytes
from meterplane.api.invoices import file_response
from meterplane.api.organisations import named_organisation
from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits, minor_to_text
from tenants.queries import organisation
from tenants.scoping import tenant_scope

RATES_MAX = 500


class CreditNotes(APIView):
    """Credit notes of an organisation."""

    @extend_schema(operation_id="credit_notes", responses=shapes.CreditNoteOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The newest first, at most 200, without their lines."""
        with tenant_scope(named_organisation(slug).id):
            shown = [_note(note) for note in credit_notes()]
        return Response(shapes.CreditNoteOut(shown, many=True).data)


class InvoiceCreditNotes(APIView):
    """Credit notes of an invoice."""

    @extend_schema(
        operation_id="credit_note_create",
        request=shapes.CreditNoteIn,
        responses={201: shapes.CreditNoteOut},
    )
    def post(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Give back of lines, never more than is left of them; without `lines`, all that is left.

        The last note of a line takes what rounding left, of its taxes too. The same key makes one
        note. Of an open invoice it lowers what is due; of a paid one it is to refund or balance.
        """
        body = shapes.CreditNoteIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        with tenant_scope(named_organisation(slug).id):
            currency = organisation().currency
            lines = asked.get("lines")
            made = create_credit_note(
                invoice_id,
                reason=asked["reason"],
                memo=asked["memo"],
                effect=asked["effect"],
                idempotency_key=asked["idempotency_key"],
                lines=None if lines is None else _asked(lines, currency),
            )
            note = credit_note(made.id)
            assert note is not None
            return Response(shapes.CreditNoteOut(_note(note)).data, status=201)


class CreditNoteDetail(APIView):
    """One credit note."""

    @extend_schema(operation_id="credit_note", responses=shapes.CreditNoteOut)
    def get(self, request: Request, slug: str, note_id: UUID) -> Response:
        """With its lines."""
        with tenant_scope(named_organisation(slug).id):
            note = credit_note(note_id)
        if note is None:
            raise _no_note()
        return Response(shapes.CreditNoteOut(_note(note)).data)


class CreditNotePDF(APIView):
    """A credit note as a document."""

    renderer_classes = (AnyBytes,)

    @extend_schema(
        operation_id="credit_note_pdf", responses={(200, "application/pdf"): OpenApiTypes.BINARY}
    )
    def get(self, request: Request, slug: str, note_id: UUID) -> HttpResponseBase:
        """The PDF."""
        with tenant_scope(named_organisation(slug).id):
            note, content = credit_note(note_id), printed_credit_note(note_id)
        if note is None or content is None:
            raise _no_note()
        return file_response(f"{note.number}.pdf", "application/pdf", content)


class TaxRates(APIView):
    """Tax rates."""

    @extend_schema(operation_id="tax_rates", responses=shapes.TaxRateOut(many=True))
    def get(self, request: Request) -> Response:
        """All of them, retired ones included."""
        rows = list(TaxRate.objects.all()[:RATES_MAX])
        return Response(shapes.TaxRateOut(rows, many=True).data)

    @extend_schema(
        operation_id="tax_rate_create",
        request=shapes.TaxRateIn,
        responses={201: shapes.TaxRateOut},
    )
    def post(self, request: Request) -> Response:
        """Make one. It never changes."""
        body = shapes.TaxRateIn(data=request.data)
        body.is_valid(raise_exception=True)
        made = taxation.create_rate(**body.validated_data)
        return Response(shapes.TaxRateOut(made).data, status=201)


class TaxRateDetail(APIView):
    """One tax rate."""

    @extend_schema(operation_id="tax_rate_retire", responses=shapes.TaxRateOut)
    def delete(self, request: Request, rate_id: UUID) -> Response:
        """Retire it: no further invoice has it, those that were made keep it."""
        return Response(shapes.TaxRateOut(taxation.retire_rate(rate_id)).data)


class OrganisationTaxes(APIView):
    """How an organisation's invoices are taxed."""

    @extend_schema(operation_id="organisation_taxes", responses=shapes.OrganisationTaxesOut)
    def get(self, request: Request, slug: str) -> Response:
        """Its rates, or that Stripe computes them, and its exemption."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_taxes())

    @extend_schema(
        operation_id="organisation_taxes_set",
        request=shapes.OrganisationTaxesIn,
        responses=shapes.OrganisationTaxesOut,
    )
    def put(self, request: Request, slug: str) -> Response:
        """Replace them; the next invoice is the first with them."""
        body = shapes.OrganisationTaxesIn(data=request.data)
        body.is_valid(raise_exception=True)
        exemption = body.validated_data["exemption"]
        with tenant_scope(named_organisation(slug).id):
            choose_taxes(body.validated_data["rates"], body.validated_data["computed_by"])
            if exemption is None:
                taxation.end_exemption()
            else:
                taxation.exempt(exemption["kind"], exemption["reason"])
            return Response(_taxes())


class OrganisationBillingDetails(APIView):
    """Who an organisation's invoices are made out to."""

    @extend_schema(operation_id="billing_details", responses=shapes.BillingDetailsShape)
    def get(self, request: Request, slug: str) -> Response:
        """As they were given; empty before."""
        with tenant_scope(named_organisation(slug).id):
            return Response(shapes.BillingDetailsShape(details()).data)

    @extend_schema(
        operation_id="billing_details_set",
        request=shapes.BillingDetailsShape,
        responses=shapes.BillingDetailsShape,
    )
    def put(self, request: Request, slug: str) -> Response:
        """Replace them; an invoice that has its number keeps what it says."""
        body = shapes.BillingDetailsShape(data=request.data)
        body.is_valid(raise_exception=True)
        with tenant_scope(named_organisation(slug).id):
            return Response(shapes.BillingDetailsShape(set_details(**body.validated_data)).data)


def _taxes() -> dict[str, Any]:
    assigned = AssignedTax.objects.select_related("rate").order_by("rate__name", "rate_id")
    rates = [each.rate for each in assigned]
    computed_by = TaxedBy.STRIPE if is_computed_by_stripe() else TaxedBy.RATES
    exemption = taxation.exemption()
    return shapes.OrganisationTaxesOut(
        {"computed_by": computed_by, "rates": rates, "exemption": exemption}
    ).data


def _asked(lines: list[dict[str, Any]], currency: str) -> list[LineAsked]:
    return [
        LineAsked(
            line["line"],
            _minor(line["amount"], currency, f"lines[{n}].amount") if "amount" in line else None,
            _decimal(line["quantity"], f"lines[{n}].quantity") if "quantity" in line else None,
        )
        for n, line in enumerate(lines)
    ]


def _minor(text: str, currency: str, field: str) -> int:
    digits = minor_digits(currency)
    scaled = EXACT.scaleb(_decimal(text, field), digits)
    if scaled != scaled.to_integral_value():
        raise CallerError(
            "credit_amount_invalid", f"{currency} has {digits} decimals.", field=field
        )
    return int(scaled)


def _decimal(text: str, field: str) -> Decimal:
    try:
        number = text_to_decimal(text)
    except NotExact:
        raise _not_an_amount(field) from None
    scaled = EXACT.scaleb(number, 12)
    if abs(number) >= 10**24 or scaled != scaled.to_integral_value():
        raise _not_an_amount(field)
    return number


def _not_an_amount(field: str) -> CallerError:
    message = "A decimal text of at most 24 digits and 12 decimals."
    return CallerError("credit_amount_invalid", message, field=field)


def _note(note: CreditNoteView) -> dict[str, Any]:
    def amount(amount_minor: int) -> str:
        return minor_to_text(amount_minor, note.currency)

    return {
        "id": note.id,
        "number": note.number,
        "invoice": note.invoice_id,
        "invoice_number": note.invoice_number,
        "reason": note.reason,
        "memo": note.memo,
        "effect": note.effect,
        "currency": note.currency,
        "subtotal": amount(note.subtotal_minor),
        "tax": amount(note.tax_exclusive_minor),
        "tax_included": amount(note.tax_inclusive_minor),
        "total": amount(note.total_minor),
        "created_at": note.created_at,
        "lines": [
            {
                "line": line.line_id,
                "position": line.position,
                "description": line.description,
                "quantity": None if line.quantity is None else f"{line.quantity.normalize():f}",
                "amount": amount(line.amount_minor),
            }
            for line in note.lines
        ],
    }


def _no_note() -> CallerError:
    return CallerError("credit_note_not_found", "There is no such credit note.", status=404)
