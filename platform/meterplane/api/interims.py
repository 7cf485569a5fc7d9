"""From which unbilled spend on an organisation is invoiced before its month is over."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing import thresholds
from meterplane.api import invoice_shapes as shapes
from meterplane.api.organisations import named_organisation
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope


class InterimThresholds(APIView):
    """The threshold of an organisation's interim invoices."""

    @extend_schema(operation_id="interim_threshold", responses=shapes.InterimThresholdOut)
    def get(self, request: Request, slug: str) -> Response:
        """Its own, or the installation's default of its currency."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_shown(thresholds.threshold()))

    @extend_schema(
        operation_id="interim_threshold_set",
        request=shapes.InterimThresholdIn,
        responses=shapes.InterimThresholdOut,
    )
    def put(self, request: Request, slug: str) -> Response:
        """From this unbilled spend of a month on, taxes aside, an interim invoice is made; null:
        never, whatever the default is."""
        body = shapes.InterimThresholdIn(data=request.data)
        body.is_valid(raise_exception=True)
        with tenant_scope(named_organisation(slug).id):
            amount = body.validated_data["amount"]
            return Response(_shown(thresholds.set_threshold(amount, by=str(request.user))))

    @extend_schema(operation_id="interim_threshold_unset", responses=shapes.InterimThresholdOut)
    def delete(self, request: Request, slug: str) -> Response:
        """Back to the installation's default."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_shown(thresholds.use_default()))


def _shown(found: thresholds.Threshold) -> dict[str, Any]:
    minor = found.amount_minor
    return shapes.InterimThresholdOut(
        {
            "amount": None if minor is None else minor_to_text(minor, found.currency),
            "currency": found.currency,
            "origin": found.origin,
        }
    ).data
