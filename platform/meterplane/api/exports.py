"""Exports of usage: of one organisation, or, for operators, over all of them."""

from typing import Any
from uuid import UUID

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api.organisations import named_organisation
from meterplane.kernel.money import nano_to_text
from meterplane.metering.exports import serve
from meterplane.metering.exports.limits import PAGE_MAX
from meterplane.metering.exports.queries import list_exports
from meterplane.metering.exports.query import FORMATS, KINDS, checked
from meterplane.metering.exports.request import (
    door_of,
    end_export,
    find_export,
    request_export,
)
from meterplane.metering.exports.stream import csv_blocks
from meterplane.metering.models import Export

PAGE_DEFAULT = 50
ALL = "all"  # whose usage it is, in the name of a file


class ExportIn(serializers.Serializer[Any]):
    """An export to be made.

    `query` has the parameters of a usage query: `from`, `to`, `last`, `tz`, filters as `model` or
    `tag:team`, and of sums `bucket` and `group_by`. A value is text, or a list of texts for any of
    them.
    """

    kind = serializers.ChoiceField(choices=list(KINDS))
    format = serializers.ChoiceField(choices=list(FORMATS))
    query = serializers.DictField(child=serializers.JSONField(), default=dict)


class ExportsQuery(serializers.Serializer[Any]):
    """Which exports. `cursor` is `next_cursor` of the page before."""

    limit = serializers.IntegerField(
        required=False, default=PAGE_DEFAULT, min_value=1, max_value=PAGE_MAX
    )
    cursor = serializers.UUIDField(required=False, default=None, allow_null=True)


class ExportOut(serializers.Serializer[Any]):
    """An export. `file` is the path to fetch it from once it is done; it goes at `expires_at`."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=list(KINDS))
    format = serializers.ChoiceField(choices=list(FORMATS))
    query = serializers.DictField()
    state = serializers.ChoiceField(choices=Export.State.values)
    error = serializers.CharField(allow_blank=True)
    days_total = serializers.IntegerField()
    days_done = serializers.IntegerField()
    rows = serializers.IntegerField()
    bytes = serializers.IntegerField()
    cost = serializers.SerializerMethodField()
    sha256 = serializers.CharField(allow_blank=True)
    file = serializers.SerializerMethodField()
    ingested_until = serializers.DateTimeField()
    requested_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)

    def get_cost(self, export: Export) -> dict[str, str]:
        """What its rows cost: a decimal string by currency."""
        return {currency: nano_to_text(nano) for currency, nano in export.sums.items()}

    def get_file(self, export: Export) -> str | None:
        """Null before there is one."""
        if export.state != Export.State.DONE:
            return None
        return f"{self.context['path']}/{export.id}/file"


class ExportPage(serializers.Serializer[Any]):
    """Exports, the newest first. `next_cursor` null: there are no older ones."""

    exports = ExportOut(many=True)
    next_cursor = serializers.UUIDField(allow_null=True)


class Exports(APIView):
    """Exports of one owner, and new ones."""

    @extend_schema(
        operation_id="v1_organisations_exports_list",
        parameters=[ExportsQuery],
        responses=ExportPage,
    )
    def get(self, request: Request, slug: str | None = None) -> Response:
        """List exports, the newest first; those of schedules are not among them."""
        query = ExportsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        limit, cursor = query.validated_data["limit"], query.validated_data["cursor"]
        tenant_id, _ = _owner(slug)
        with door_of(tenant_id):
            found = list_exports(tenant_id, limit + 1, cursor)
        page = found[:limit]
        told = {"exports": page, "next_cursor": page[-1].id if len(found) > len(page) else None}
        return Response(ExportPage(told, context={"path": _path(slug)}).data)

    @extend_schema(request=ExportIn, responses={201: ExportOut})
    def post(self, request: Request, slug: str | None = None) -> Response:
        """Ask for an export of what has been taken in by now; a worker writes it."""
        body = ExportIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        query = checked(asked["kind"], asked["format"], _params(asked["query"]))
        tenant_id, _ = _owner(slug)
        made = request_export(
            tenant_id=tenant_id, query=query, requested_by=str(request.user)[:200]
        )
        return Response(ExportOut(made, context={"path": _path(slug)}).data, status=201)


@extend_schema_view(get=extend_schema(operation_id="v1_exports_list"))
class AllExports(Exports):
    """Exports over all organisations, and new ones."""


class ExportDetail(APIView):
    """One export."""

    @extend_schema(responses=ExportOut)
    def get(self, request: Request, export_id: UUID, slug: str | None = None) -> Response:
        """How far it is."""
        found = find_export(_owner(slug)[0], export_id)
        return Response(ExportOut(found, context={"path": _path(slug)}).data)

    @extend_schema(responses={200: ExportOut, 204: None})
    def delete(self, request: Request, export_id: UUID, slug: str | None = None) -> Response:
        """Cancel one that is being written (200), or remove one that has ended (204)."""
        left = end_export(_owner(slug)[0], export_id)
        if left is None:
            return Response(status=204)
        return Response(ExportOut(left, context={"path": _path(slug)}).data)


class AnyBytes(BaseRenderer):
    """Whatever a client accepts: the answer is a file."""

    media_type = "*/*"
    format = "file"
    charset = None

    def render(self, data: Any, *_: Any, **__: Any) -> bytes:
        """Only a problem is rendered, and that is JSON."""
        return JSONRenderer().render(data)


class ExportFile(APIView):
    """The file of an export."""

    renderer_classes = (AnyBytes,)

    @extend_schema(
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY,
                   (206, "application/octet-stream"): OpenApiTypes.BINARY},
        parameters=[
            OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="bytes=100-"),
            OpenApiParameter("If-Range", str, OpenApiParameter.HEADER, description="its ETag"),
        ],
    )  # fmt: skip
    def get(self, request: Request, export_id: UUID, slug: str | None = None) -> HttpResponseBase:
        """Download it. A download that broke off goes on with `Range` and `If-Range`."""
        tenant_id, name = _owner(slug)
        found = find_export(tenant_id, export_id)
        return serve.file_response(request._request, found, name)


class ExportStream(APIView):
    """Usage as CSV in one answer, without a file to wait for."""

    renderer_classes = (AnyBytes,)

    @extend_schema(
        parameters=[
            OpenApiParameter("kind", enum=list(KINDS), default="events"),
            OpenApiParameter("from", str),
            OpenApiParameter("to", str),
        ],
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request, slug: str | None = None) -> HttpResponseBase:
        """Stream the CSV, with the parameters of a usage query; it cannot be continued."""
        tenant_id, name = _owner(slug)
        params = dict(request.query_params.lists())
        kind = params.pop("kind", ["events"])[-1]
        query = checked(kind, "csv", params)
        response = serve.streamed(request._request, csv_blocks(tenant_id, query))
        response["Content-Type"] = serve.TYPES["csv"]
        serve.attach(response, serve.filename(query, name))
        return response


def _owner(slug: str | None) -> tuple[UUID | None, str]:
    """Whose exports an address is about, and what their files are named by."""
    if slug is None:
        return None, ALL
    return named_organisation(slug).id, slug


def _path(slug: str | None) -> str:
    return f"/api/v1/organisations/{slug}/exports" if slug else "/api/v1/exports"


def _params(asked: dict[str, Any]) -> dict[str, list[str]]:
    """A JSON object as a query string would have it."""
    params: dict[str, list[str]] = {}
    for name, value in asked.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise serializers.ValidationError(
                {"query": [f"{name[:64]} is a text, or a list of texts."]}
            )
        params[name] = values
    return params
