"""Contracts of an organisation, and its invoices with their lines."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing.agree import agree, end
from billing.invoicing.queries import UpcomingInvoice, upcoming_invoice
from billing.pricing.contract_json import contract_to_json
from billing.pricing.contract_queries import contract_by_id, events_of, list_contracts
from meterplane.api import pricing_shapes as shapes
from meterplane.api.event_shapes import instant
from meterplane.api.exact import ExactJSON, ExactRenderer, object_of
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from meterplane.metering.external.shape import read_instant
from tenants.scoping import tenant_scope


class Contracts(APIView):
    """An organisation's contracts."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_contracts_list",
        responses={200: {"type": "array", "items": shapes.CONTRACT_OUT}},
    )
    def get(self, request: Request, slug: str) -> Response:
        """List contracts, the newest first; ended ones too."""
        with tenant_scope(named_organisation(slug).id):
            return Response([contract_to_json(each) for each in list_contracts()])

    @extend_schema(
        request={"application/json": shapes.CONTRACT_IN}, responses={201: shapes.CONTRACT_OUT}
    )
    def post(self, request: Request, slug: str) -> Response:
        """Agree on a contract. It never changes; one that holds when it begins ends there."""
        made = agree(
            tenant_id=named_organisation(slug).id,
            body=object_of(request.data),
            by=str(request.user),
        )
        return Response(contract_to_json(made), 201)


class ContractDetail(APIView):
    """One contract."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: shapes.CONTRACT_OUT})
    def get(self, request: Request, slug: str, contract_id: UUID) -> Response:
        """The contract, and everything that happened to it."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_contract(contract_id))


class ContractEnd(APIView):
    """The end of a contract."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        request={"application/json": shapes.END_IN}, responses={200: shapes.CONTRACT_OUT}
    )
    def post(self, request: Request, slug: str, contract_id: UUID) -> Response:
        """End the contract now, or `at` an instant to come, earlier than agreed."""
        body = object_of(request.data) if request.data else {}
        said = body.get("at")
        tenant_id = named_organisation(slug).id
        end(
            tenant_id=tenant_id,
            contract_id=contract_id,
            at=None if said is None else read_instant(said, "at"),
            by=str(request.user),
        )
        with tenant_scope(tenant_id):
            return Response(_contract(contract_id))


class Upcoming(APIView):
    """What the running period owes so far, with the credit and taxes to be expected."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: shapes.BILL_OUT})
    def get(self, request: Request, slug: str) -> Response:
        """The invoice that closing the period now would give."""
        with tenant_scope(named_organisation(slug).id):
            found = upcoming_invoice()
        if found is None:
            raise CallerError("nothing_open", "Usage is closed up to now.", status=404)
        already = minor_to_text(found.already_invoiced_minor, found.currency)
        told = {"id": None, "number": None, "status": "upcoming", "already_invoiced": already}
        return Response(told | _bill(found))


def _contract(contract_id: UUID) -> dict[str, Any]:
    contract = contract_by_id(contract_id)
    if contract is None:
        raise CallerError("contract_not_found", "There is no such contract.", status=404)
    events = [
        {"kind": each.kind, "at": instant(each.at), "by": each.by, "before": each.before,
         "after": each.after}
        for each in events_of(contract_id)
    ]  # fmt: skip
    return contract_to_json(contract) | {"events": events}


def _bill(found: UpcomingInvoice) -> dict[str, Any]:
    def amount(amount_minor: int) -> str:
        return minor_to_text(amount_minor, found.currency)

    taxes = [
        {"name": tax.name, "percentage": tax.percentage, "mode": tax.mode,
         "taxable": amount(tax.taxable_minor), "amount": amount(tax.amount_minor)}
        for tax in found.taxes
    ]  # fmt: skip
    return {
        "currency": found.currency,
        "used": amount(found.used_minor),
        "credit": amount(found.credit_minor),
        "subtotal": amount(found.subtotal_minor),
        "tax": amount(found.tax_exclusive_minor),
        "tax_included": amount(found.tax_inclusive_minor),
        "taxes": taxes,
        "tax_note": found.tax_note,
        "total": amount(found.total_minor),
        "period_start": instant(found.period_start),
        "period_end": instant(found.period_end),
        "content_hash": found.content_hash,
        "lines": [shapes.line_json(line, found.currency) for line in found.lines],
    }
