"""The request log: single requests, newest first, and everything that is known of one.

Filters are those of usage. An organisation is its slug, a project and a key their ids. A request of
another organisation than the address names is missing, as one that never was.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing.line_events import billed_on
from billing.pricing.request_cost import CostLine, cost_lines
from meterplane.api.invoice_shapes import BilledOnOut
from meterplane.api.organisations import named_organisation
from meterplane.api.usage import FILTERS, ORGANISATION, PERIOD
from meterplane.kernel.money import nano_to_text, pico_to_text
from meterplane.metering.queries import PAGE_ROWS_MAX, RequestRow, recent_requests
from meterplane.metering.request_named import request_named
from meterplane.metering.timeline import moments, phases
from meterplane.metering.usage_query import RequestQuery, parse_requests
from tenants.models import Organisation
from tenants.scoping import system_scope, tenant_scope

PAGE_DEFAULT = 50


class RequestOut(serializers.Serializer[Any]):
    """One request. `request_id` is what its caller got as `x-request-id`; `cost` a decimal text in
    `currency`."""

    request_id = serializers.UUIDField()
    organisation = serializers.CharField()
    project = serializers.UUIDField()
    key = serializers.UUIDField()
    received_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField()
    model = serializers.CharField()
    requested_model = serializers.CharField(allow_blank=True)
    deployment = serializers.CharField(allow_blank=True)
    surface = serializers.CharField()
    service_tier = serializers.CharField()
    priority = serializers.CharField()
    region = serializers.CharField(allow_blank=True)
    gpu_type = serializers.CharField(allow_blank=True)
    stream = serializers.BooleanField()
    status = serializers.CharField()
    http_status = serializers.IntegerField()
    tokens_in = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    requests = serializers.IntegerField()
    currency = serializers.CharField()
    cost = serializers.CharField()
    first_byte_ms = serializers.IntegerField()
    total_ms = serializers.IntegerField()
    tags = serializers.DictField(child=serializers.CharField())


class RequestsOut(serializers.Serializer[Any]):
    """A page of requests. `next_cursor` is null on the last one."""

    requests = RequestOut(many=True)
    next_cursor = serializers.UUIDField(allow_null=True)


class PhaseOut(serializers.Serializer[Any]):
    """A part of the time from admission to the last byte; the phases fill it."""

    name = serializers.ChoiceField(choices=["queue", "first_token", "rest"])
    start_us = serializers.IntegerField()
    duration_us = serializers.IntegerField()


class MomentOut(serializers.Serializer[Any]):
    """Something that happened. `after_us` counts from admission, where that was measured."""

    name = serializers.CharField()
    at = serializers.DateTimeField()
    after_us = serializers.IntegerField(allow_null=True)


class CostLineOut(serializers.Serializer[Any]):
    """One meter at its unit price. Products add up to the cost, which is rounded once to nano."""

    meter = serializers.CharField()
    quantity = serializers.IntegerField()
    unit_price = serializers.CharField()
    product = serializers.CharField()


class RequestDetailOut(RequestOut):
    """Everything that is known of one request. `returned` is what of its reservation was given
    back; `segment_id` names the journal segment that its usage event came in. `cost_lines` is empty
    where the price version is unknown, or all its prices are zero. `billed_on` names the invoice
    lines that it is part of."""

    billed_on = BilledOnOut()

    admitted_at = serializers.DateTimeField(allow_null=True)
    provenance = serializers.CharField()
    price_version_id = serializers.UUIDField()
    reserved = serializers.CharField()
    returned = serializers.CharField()
    cost_lines = CostLineOut(many=True)
    phases = PhaseOut(many=True)
    timeline = MomentOut(many=True)
    server = serializers.CharField(allow_blank=True)
    retries = serializers.IntegerField()
    queue_us = serializers.IntegerField()
    compute_us = serializers.IntegerField()
    rows = serializers.IntegerField()
    bytes_in = serializers.IntegerField()
    bytes_out = serializers.IntegerField()
    tensor_bytes_in = serializers.IntegerField()
    tensor_bytes_out = serializers.IntegerField()
    tokens_out_stop = serializers.IntegerField()
    trace_id = serializers.CharField(allow_blank=True)
    segment_id = serializers.UUIDField()
    ingested_at = serializers.DateTimeField()


PAGE = [
    OpenApiParameter("limit", OpenApiTypes.INT, description=f"At most {PAGE_ROWS_MAX}."),
    OpenApiParameter("cursor", OpenApiTypes.UUID, description="next_cursor of the page before."),
]


class Requests(APIView):
    """Requests of all organisations."""

    @extend_schema(
        operation_id="requests_of_all",
        parameters=[*PERIOD, *ORGANISATION, *FILTERS, *PAGE],
        responses=RequestsOut,
    )
    def get(self, request: Request) -> Response:
        """The newest first. Looks back 92 days from the newest, from `to` or from `cursor`."""
        params = dict(request.query_params.lists())
        if slugs := params.pop("organisation", []):
            params["organisation"] = [str(named_organisation(slug).id) for slug in slugs]
        asked = _asked(params)
        with system_scope("an operator key reads the request log"):
            return _page(asked)


class RequestDetail(APIView):
    """One request of any organisation."""

    @extend_schema(operation_id="request_of_all", responses=RequestDetailOut)
    def get(self, request: Request, request_id: str) -> Response:
        """Everything that is known of it."""
        with system_scope("an operator key reads the request log"):
            return _detail(request_id)


class OrganisationRequests(APIView):
    """Requests of an organisation."""

    @extend_schema(
        operation_id="requests_of_organisation",
        parameters=[*PERIOD, *FILTERS, *PAGE],
        responses=RequestsOut,
    )
    def get(self, request: Request, slug: str) -> Response:
        """The newest first. Looks back 92 days from the newest, from `to` or from `cursor`."""
        asked = _asked(dict(request.query_params.lists()))
        with tenant_scope(named_organisation(slug).id):
            return _page(asked)


class OrganisationRequestDetail(APIView):
    """One request of an organisation."""

    @extend_schema(operation_id="request_of_organisation", responses=RequestDetailOut)
    def get(self, request: Request, slug: str, request_id: str) -> Response:
        """Everything that is known of it."""
        with tenant_scope(named_organisation(slug).id):
            return _detail(request_id)


def _asked(params: dict[str, list[str]]) -> RequestQuery:
    params.pop("format", None)
    return parse_requests(params, limit_default=PAGE_DEFAULT, limit_max=PAGE_ROWS_MAX)


def _page(asked: RequestQuery) -> Response:
    rows = recent_requests(
        asked.limit, asked.cursor, filters=asked.filters, since=asked.since, until=asked.until
    )
    slugs = _slugs(row.tenant_id for row in rows)
    page = {
        "requests": [_summary(row, slugs) for row in rows],
        "next_cursor": rows[-1].request_id if len(rows) == asked.limit else None,
    }
    return Response(RequestsOut(page).data)


def _detail(text: str) -> Response:
    row = request_named(text)
    lines = cost_lines(
        row.price_version_id,
        row.model,
        row.service_tier,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        requests=row.requests,
    )
    with tenant_scope(row.tenant_id):
        billed = billed_on(row)
    shown = asdict(row) | _summary(row, _slugs([row.tenant_id]))
    shown |= {
        "reserved": nano_to_text(row.reserved_nano),
        "returned": nano_to_text(row.reserved_nano - row.cost_nano),
        "cost_lines": [_cost_line(line) for line in lines],
        "phases": [asdict(phase) for phase in phases(row)],
        "timeline": [asdict(moment) for moment in moments(row)],
        "billed_on": billed,
    }
    return Response(RequestDetailOut(shown).data)


def _summary(row: RequestRow, slugs: dict[UUID, str]) -> dict[str, Any]:
    return asdict(row) | {
        "organisation": slugs.get(row.tenant_id, ""),
        "project": row.project_id,
        "key": row.key_id,
        "received_at": row.event_at,
        "cost": nano_to_text(row.cost_nano),
    }


def _cost_line(line: CostLine) -> dict[str, str | int]:
    return {
        "meter": line.meter,
        "quantity": line.quantity,
        "unit_price": pico_to_text(line.unit_price_pico),
        "product": pico_to_text(line.product_pico),
    }


def _slugs(ids: Iterable[UUID]) -> dict[UUID, str]:
    """What the organisations of the open door are named by."""
    return dict(Organisation.objects.filter(id__in=set(ids)).values_list("id", "slug"))
