"""Verdicts on metering, hour by hour, for the operator."""

from datetime import timedelta
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.models import Reconciliation
from meterplane.metering.reconcile.queries import ROWS_MAX, verdicts_between
from tenants.scoping import system_scope

DAY = timedelta(days=1)


class ReconciliationOut(serializers.Serializer[Any]):
    """One model on one server in one hour.

    `server` is what answered, empty where nothing did, and `*` for all of them together: that row
    alone has `rolled_up`. `triton` is what the server's own counters rose by around the hour; it
    passes between `triton_low` and `triton_high`. Null: not compared. `missing` and `extra` name
    the first 100 of `missing_count` and `extra_count`.
    """

    hour = serializers.DateTimeField()
    model = serializers.CharField()
    server = serializers.CharField(allow_blank=True)
    journal = serializers.IntegerField()
    events = serializers.IntegerField()
    rolled_up = serializers.IntegerField(allow_null=True)
    triton_low = serializers.IntegerField(allow_null=True)
    triton_high = serializers.IntegerField(allow_null=True)
    triton = serializers.IntegerField(allow_null=True)
    missing = serializers.ListField(child=serializers.UUIDField())
    missing_count = serializers.IntegerField()
    extra = serializers.ListField(child=serializers.UUIDField())
    extra_count = serializers.IntegerField()
    verdict = serializers.ChoiceField(choices=Reconciliation.Verdict.values)
    reason = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField()


class ReconciliationView(APIView):
    """Whether metering adds up."""

    @extend_schema(
        parameters=[
            OpenApiParameter("from", type=OpenApiTypes.DATETIME),
            OpenApiParameter("to", type=OpenApiTypes.DATETIME),
            OpenApiParameter("verdict", enum=Reconciliation.Verdict.values),
        ],
        responses=ReconciliationOut(many=True),
    )
    def get(self, request: Request) -> Response:
        """Verdicts on hours that begin in [from, to), newest first, at most 1,000.

        By default those of the last day.
        """
        end = instant(request, "to") or clock.now()
        start = instant(request, "from") or end - DAY
        if start >= end:
            raise CallerError("period_empty", "from must be before to.", field="from")
        verdict = request.query_params.get("verdict", "")
        if verdict and verdict not in Reconciliation.Verdict.values:
            known = ", ".join(Reconciliation.Verdict.values)
            raise CallerError("verdict_unknown", f"A verdict is one of {known}.", field="verdict")
        with system_scope("an operator key reads verdicts"):
            rows = verdicts_between(start, end, verdict, ROWS_MAX)
        return Response(ReconciliationOut(rows, many=True).data)


def instant(request: Request, name: str) -> Any:
    """An aware instant of the query, or None. Raises `CallerError`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return serializers.DateTimeField().run_validation(text)
    except serializers.ValidationError:
        raise CallerError(
            "instant_invalid", f"{name} is an instant like 2026-11-29T14:00:00Z.", field=name
        ) from None
