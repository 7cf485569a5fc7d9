"""Metered usage, of one organisation or of all of them, as JSON or as CSV of the same rows.

What may be asked is `metering.usage_query`'s; here an organisation is its slug, in filters and in
answers. `?format=csv` or `Accept: text/csv` gives CSV.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.metering.buckets import UNITS
from meterplane.metering.usage_query import (
    DIMENSIONS,
    ORDERS,
    TAG,
    Order,
    parse,
)
from meterplane.metering.usage_table import UsageTable, run
from meterplane.metering.usage_written import csv_text, document, row_document
from tenants.models import Organisation
from tenants.scoping import system_scope, tenant_scope

OF_ONE = tuple(name for name in DIMENSIONS if name != "organisation")
_OLD_NAMES = {"start": "from", "end": "to"}  # of the two lists, kept for who calls them
_SHAPED_BY_ADDRESS = ("bucket", "group_by", "order", "limit", "organisation")


class CsvRenderer(BaseRenderer):
    """Lets a caller ask for CSV. The view writes it; what is left to render is a problem."""

    media_type = "text/csv"
    format = "csv"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        """A problem is JSON, whatever was asked for."""
        rendered: bytes = JSONRenderer().render(data)
        return rendered


class UsageRowOut(serializers.Serializer[Any]):
    """One row: `at` with a bucket, then a field of each dimension it is grouped by.

    `events` are requests that were admitted, also those that cost nothing; `requests` is what is
    billed by the request. `cost` is a decimal text in `currency`. A tag that the requests do not
    have is the empty text.
    """

    at = serializers.DateTimeField(required=False)
    currency = serializers.CharField()
    events = serializers.IntegerField()
    events_ok = serializers.IntegerField()
    requests = serializers.IntegerField()
    tokens_in = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    cost = serializers.CharField()
    mean_ms = serializers.IntegerField()


class UsageTableOut(serializers.Serializer[Any]):
    """A table of usage. `truncated`: there are more rows; the totals are of all of them."""

    bucket = serializers.ChoiceField(choices=UNITS, allow_null=True)
    tz = serializers.CharField()
    group_by = serializers.ListField(child=serializers.CharField())
    rows = UsageRowOut(many=True)
    totals = UsageRowOut(many=True)
    source = serializers.ListField(child=serializers.CharField())  # type: ignore[assignment]  # DRF's own
    truncated = serializers.BooleanField()

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python's."""
        instants = {name: serializers.DateTimeField() for name in ("from", "to")}
        return instants | super().get_fields()


class UsageOut(serializers.Serializer[Any]):
    """Usage of one model in one service tier under one price version in the period."""

    model = serializers.CharField()
    service_tier = serializers.ChoiceField(choices=["standard", "batch"])
    price_version_id = serializers.UUIDField()
    currency = serializers.CharField()
    events = serializers.IntegerField()
    events_ok = serializers.IntegerField()
    requests = serializers.IntegerField()
    tokens_in = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    cost = serializers.CharField()
    mean_ms = serializers.IntegerField()


class UsageByOut(serializers.Serializer[Any]):
    """Usage of one group in the period. `events` counts requests, also those that cost nothing."""

    group = serializers.CharField()
    currency = serializers.CharField()
    events = serializers.IntegerField()
    events_ok = serializers.IntegerField()
    requests = serializers.IntegerField()
    tokens_in = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    cost = serializers.CharField()
    mean_ms = serializers.IntegerField()


def _parameter(name: str, description: str, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, description=description, **more)


PERIOD = [
    _parameter("from", "An instant, or a day: its midnight in tz. By default the month so far."),
    _parameter("to", "An instant, or a day; not in the period itself."),
    _parameter("last", "Instead of both: 12h, 30d or 8w until now."),
    _parameter("tz", "The zone that days begin in, e.g. Europe/Berlin."),
]
FILTERS = [
    *(_parameter(name, "Only with this value; repeat it for any of several.") for name in OF_ONE),
    _parameter("tag:{name}", "Only with this value of the tag; empty for those without it."),
]
TABLE = [
    _parameter("bucket", "Sums by this unit of time.", enum=list(UNITS)),
    _parameter("group_by", f"At most three, with commas: {', '.join(DIMENSIONS)}, tag:<name>."),
    _parameter("order", "Rows in this order.", enum=list(ORDERS)),
    OpenApiParameter("limit", OpenApiTypes.INT, description="At most so many rows."),
]
OLD_PERIOD = [
    OpenApiParameter("start", OpenApiTypes.DATETIME, description="As from.", deprecated=True),
    OpenApiParameter("end", OpenApiTypes.DATETIME, description="As to.", deprecated=True),
]
CSV = [_parameter("format", "json, or csv for the same rows as CSV.", enum=["json", "csv"])]
ORGANISATION = [_parameter("organisation", "Only of this one, by its slug; may be repeated.")]


class Usage(APIView):
    """Usage of all organisations."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(
        operation_id="usage_table",
        parameters=[*PERIOD, *TABLE, *ORGANISATION, *FILTERS, *CSV],
        responses=UsageTableOut,
    )
    def get(self, request: Request) -> HttpResponse:
        """Usage by bucket of time and by up to three dimensions, organisations among them."""
        params = _given(request)
        named = [named_organisation(slug) for slug in params.pop("organisation", [])]
        if named:
            params["organisation"] = [str(each.id) for each in named]
        query = parse(params)
        if len(named) == 1:
            with tenant_scope(named[0].id):
                table = run(query)
        else:
            with system_scope("an operator key reads usage"):
                table = run(query)
        table = _by_slug(table)
        if _wants_csv(request):
            return csv_response("usage.csv", table)
        return Response(document(table))


class OrganisationUsage(APIView):
    """An organisation's metered usage."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(parameters=[*PERIOD, *OLD_PERIOD, *FILTERS, *CSV], responses=UsageOut(many=True))
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Usage by model, service tier and price version in the half-open period [from, to)."""
        table = _of_one(request, slug, ("model", "service_tier", "price_version"), "name")
        if _wants_csv(request):
            return csv_response(f"usage-{slug}.csv", table)
        rows = [row_document(table, row) for row in table.rows]
        return _list([row | {"price_version_id": row.pop("price_version")} for row in rows], table)


class OrganisationUsageBy(APIView):
    """An organisation's metered usage, grouped."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(
        parameters=[
            *PERIOD, *OLD_PERIOD, *FILTERS, *CSV,
            _parameter("group", f"{', '.join(OF_ONE)} or tag:<name>", location="path"),
        ],
        responses=UsageByOut(many=True),
    )  # fmt: skip
    def get(self, request: Request, slug: str, group: str) -> HttpResponse:
        """Usage in the half-open period [from, to) by one dimension, the costliest first.

        A deployment's group is `model @ deployment`.
        """
        if group not in OF_ONE and not (group.startswith(TAG) and len(group) > len(TAG)):
            known = ", ".join((*OF_ONE, "tag:<name>"))
            raise CallerError(
                "group_unknown", f"Usage is grouped by one of {known}.", status=404, field="group"
            )
        table = _of_one(request, slug, (group,), "cost")
        if _wants_csv(request):
            return csv_response(f"usage-{slug}.csv", table)
        rows = [row_document(table, row) for row in table.rows]
        return _list([{"group": row.pop(group)} | row for row in rows], table)


def csv_response(filename: str, table: UsageTable) -> HttpResponse:
    """The table's rows, all of them in memory: `ROWS_MAX` bounds them."""
    response = HttpResponse(csv_text(table), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return _told_if_truncated(response, table)


def _list(rows: list[dict[str, Any]], table: UsageTable) -> HttpResponse:
    response: HttpResponse = Response(rows)
    return _told_if_truncated(response, table)


def _told_if_truncated(response: HttpResponse, table: UsageTable) -> HttpResponse:
    """Where an answer has rows alone, a header says that there are more."""
    if table.truncated:
        response["x-meterplane-truncated"] = "true"
    return response


def _of_one(request: Request, slug: str, group_by: tuple[str, ...], order: Order) -> UsageTable:
    params = _given(request)
    for name in _SHAPED_BY_ADDRESS:
        if name in params:
            raise CallerError(
                "unknown_parameter",
                f"This address says what is summed; use /api/v1/usage?organisation={slug} to"
                f" choose {name}.",
                field=name,
            )
    for old, name in _OLD_NAMES.items():
        if old in params:
            params[name] = params.pop(old)
    try:
        query = replace(parse(params), group_by=group_by, order=order)
    except CallerError as refused:
        old_name = next((old for old, name in _OLD_NAMES.items() if name == refused.field), None)
        if old_name in request.query_params:
            refused.field = old_name
        raise
    with tenant_scope(named_organisation(slug).id):
        return run(query)


def _given(request: Request) -> dict[str, list[str]]:
    given: Mapping[str, Sequence[str]] = dict(request.query_params.lists())
    return {name: list(values) for name, values in given.items() if name != "format"}


def _wants_csv(request: Request) -> bool:
    return bool(request.accepted_renderer.format == CsvRenderer.format)


def _by_slug(table: UsageTable) -> UsageTable:
    if "organisation" not in table.query.group_by:
        return table
    place = table.query.group_by.index("organisation")
    ids = {UUID(row.groups[place]) for row in table.rows}
    with system_scope("an operator key reads usage"):
        slugs = dict(Organisation.objects.filter(id__in=ids).values_list("id", "slug"))
    rows = (
        replace(
            row,
            groups=tuple(
                slugs[UUID(group)] if n == place else group for n, group in enumerate(row.groups)
            ),
        )
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))
