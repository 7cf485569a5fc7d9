"""Disputed payments, for operators: of all organisations or of one, as JSON or as CSV.

`?format=csv` or `Accept: text/csv` gives the same rows as CSV. They are answered at the provider.
"""

from typing import Any
from uuid import UUID

from django.db.models import Q
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.payments.disputes_written import (
    STATES,
    csv_text,
    dispute_by_id,
    disputes_listed,
    movements_of,
    row_of,
)
from billing.payments.models import Dispute, DisputeMovement
from meterplane.api.organisations import named_organisation
from meterplane.api.usage import CsvRenderer
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope

QUERY = [
    OpenApiParameter("state", enum=list(STATES)),
    OpenApiParameter("format", enum=["json", "csv"]),
]


class FeeOut(serializers.Serializer[Any]):
    """What the provider asks for a dispute, in the currency of our account there."""

    amount = serializers.CharField()
    currency = serializers.CharField()


class DisputeOut(serializers.Serializer[Any]):
    """A payment that a bank takes back: of an invoice or of a top-up. With no organisation its
    payment is not known, and `note` says why. Evidence is due at the provider at `evidence_due_at`;
    null: the bank takes none. `credit_taken` is unspent credit that the payment had bought.
    """

    id = serializers.UUIDField()
    provider_dispute_id = serializers.CharField()
    organisation = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(choices=Dispute.Status.values)
    reason = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    evidence_due_at = serializers.DateTimeField(allow_null=True)
    has_evidence = serializers.BooleanField()
    invoice = serializers.UUIDField(allow_null=True)
    invoice_number = serializers.CharField(allow_null=True)
    top_up = serializers.UUIDField(allow_null=True)
    withdrawn = serializers.CharField()
    reinstated = serializers.CharField()
    fees = FeeOut(many=True)
    credit_taken = serializers.CharField()
    lost = serializers.CharField()
    note = serializers.CharField(allow_blank=True)
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)


class DisputeMovementOut(serializers.Serializer[Any]):
    """Something that a dispute moved. Of what was lost, `owed` had been promised back anyway and
    `balance` had been paid too much."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=DisputeMovement.Kind.values)
    amount = serializers.CharField()
    currency = serializers.CharField()
    owed = serializers.CharField()
    balance = serializers.CharField()
    provider_transaction_id = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField()


class DisputeInFullOut(DisputeOut):
    """A dispute with all that it moved, in order."""

    movements = DisputeMovementOut(many=True)


class Disputes(APIView):
    """Disputes of all organisations."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(operation_id="disputes_all", parameters=QUERY, responses=DisputeOut(many=True))
    def get(self, request: Request) -> HttpResponse:
        """Open ones first, by when evidence is due; at most 1,000."""
        return _listed(request, Q())


class OrganisationDisputes(APIView):
    """Disputes of one organisation."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(operation_id="disputes", parameters=QUERY, responses=DisputeOut(many=True))
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Open ones first, by when evidence is due; at most 1,000."""
        return _listed(request, Q(tenant=named_organisation(slug).id))


class DisputeDetail(APIView):
    """One dispute."""

    @extend_schema(operation_id="dispute", responses=DisputeInFullOut)
    def get(self, request: Request, dispute_id: UUID) -> Response:
        """With everything it moved."""
        with system_scope("an operator key reads a dispute"):
            dispute = dispute_by_id(dispute_id)
            if dispute is None:
                raise CallerError("dispute_not_found", "There is no such dispute.", status=404)
            row = row_of(dispute) | {"movements": movements_of(dispute)}
        return Response(DisputeInFullOut(row).data)


def _listed(request: Request, which: Q) -> HttpResponse:
    state = request.query_params.get("state", "")
    if state and state not in STATES:
        known = ", ".join(STATES)
        raise CallerError("state_unknown", f"A state is one of {known}.", field="state")
    with system_scope("an operator key reads disputes"):
        disputes = list(disputes_listed(state, which))
        if request.accepted_renderer.format == CsvRenderer.format:
            response = HttpResponse(csv_text(disputes), content_type="text/csv; charset=utf-8")
            response["Content-Disposition"] = 'attachment; filename="disputes.csv"'
            return response
        rows = [row_of(dispute) for dispute in disputes]
    return Response(DisputeOut(rows, many=True).data)
