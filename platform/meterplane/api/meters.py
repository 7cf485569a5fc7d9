"""Meters and what they count."""

from typing import Any, get_args

import msgspec
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api.event_shapes import instant
from meterplane.api.exact import ExactJSON, ExactRenderer, object_of, text_of
from meterplane.api.organisations import named_organisation
from meterplane.catalog.meters import BUILT_IN, Aggregation, Version, at, list_meters, versions_of
from meterplane.catalog.meters_change import change_meter, create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.kernel import clock
from meterplane.metering.buckets import UNITS, zone_named
from meterplane.metering.external.shape import read_instant
from meterplane.metering.meters.evaluate import MeterUsage, usage_of
from tenants.scoping import tenant_scope

_TEXT = {"type": "string"}
_INSTANT = {"type": "string", "format": "date-time"}
_LIST = {"type": "array", "items": {"type": "string"}}
_FILTER = {
    "type": "object",
    "required": ["field", "op", "value"],
    "properties": {"field": _TEXT, "op": {"enum": ["eq", "neq", "in"]}, "value": {}},
}
_DEFINITION = {
    "name": _TEXT,
    "unit": _TEXT,
    "event_type": _TEXT | {"description": "meterplane.request, or a type of external events"},
    "aggregation": {"enum": list(get_args(Aggregation))},
    "field": _TEXT | {"description": "a quantity of a request, or a path like data.gpu_seconds"},
    "filters": {"type": "array", "items": _FILTER, "maxItems": 10},
    "dimensions": _LIST | {"maxItems": 5},
    "conversion": {
        "type": ["object", "null"],
        "properties": {"operation": {"enum": ["multiply", "divide"]}, "by": _TEXT},
        "required": ["operation", "by"],
    },
    "rounding": {
        "type": "object",
        "description": "Of each row, once, after the conversion.",
        "properties": {
            "rule": {"enum": ["none", "ceil", "floor", "half_up"]},
            "digits": {"type": "integer", "minimum": 0, "maximum": 12},
        },
    },
}
_REQUIRED = ["name", "unit", "event_type", "aggregation"]
METER_IN = {
    "type": "object",
    "required": ["slug", *_REQUIRED],
    "properties": {"slug": _TEXT, **_DEFINITION},
}
VERSION_IN = {
    "type": "object",
    "required": _REQUIRED,
    "properties": {"effective_from": _INSTANT, **_DEFINITION},
}
_VERSION = {
    "type": "object",
    "properties": {
        "version": {"type": "integer"},
        "effective_from": _INSTANT,
        "effective_until": {"type": ["string", "null"], "format": "date-time"},
        "created_at": _INSTANT,
        "created_by": _TEXT,
        **_DEFINITION,
    },
}
METER_OUT = {
    "type": "object",
    "description": "A meter: `version` is the one that holds now.",
    "properties": {
        "slug": _TEXT,
        "built_in": {"type": "boolean"},
        "version": {"type": "integer"},
        "versions": {"type": "array", "items": _VERSION},
    },
}
USAGE_OUT = {
    "type": "object",
    "description": "Values as decimal text, of the version each row names. Buckets without events"
    " are left out. `skipped` events had no usable value in the version's field.",
    "properties": {
        "meter": _TEXT,
        "organisation": _TEXT,
        "from": _INSTANT,
        "to": _INSTANT,
        "versions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "version": {"type": "integer"},
                    "unit": _TEXT,
                    "from": _INSTANT,
                    "to": _INSTANT,
                    "skipped": {"type": "integer"},
                },
            },
        },
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "version": {"type": "integer"},
                    "bucket": {"type": ["string", "null"], "format": "date-time"},
                    "group": {"type": "object", "additionalProperties": True},
                    "value": _TEXT,
                },
            },
        },
    },
}


class MeterUsageQuery(serializers.Serializer[Any]):
    """Of whom, when and how a meter is counted: [from, to), by default the month so far."""

    organisation = serializers.CharField()
    to = serializers.DateTimeField(required=False)
    bucket = serializers.ChoiceField(choices=UNITS, required=False)
    tz = serializers.CharField(default="UTC")
    group_by = serializers.CharField(required=False, help_text="dimensions, comma-separated")

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python's."""
        return super().get_fields() | {"from": serializers.DateTimeField(required=False)}


class Meters(APIView):
    """All meters."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_meters_list", responses={200: {"type": "array", "items": METER_OUT}}
    )
    def get(self, request: Request) -> Response:
        """List meters, the product's own first."""
        return Response([_meter(versions) for versions in list_meters()])

    @extend_schema(request={"application/json": METER_IN}, responses={201: METER_OUT})
    def post(self, request: Request) -> Response:
        """Make a meter. It counts what was used before it was made, too."""
        body = dict(object_of(request.data))
        slug = text_of(body, "slug")
        del body["slug"]
        create_meter(slug, read_definition(body), by=str(request.user))
        return Response(_meter(versions_of(slug)), 201)


class MeterDetail(APIView):
    """One meter."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: METER_OUT})
    def get(self, request: Request, slug: str) -> Response:
        """The meter with all its versions."""
        return Response(_meter(versions_of(slug)))

    @extend_schema(request={"application/json": VERSION_IN}, responses={200: METER_OUT})
    def put(self, request: Request, slug: str) -> Response:
        """Let another version hold from `effective_from` on, by default from now."""
        body = dict(object_of(request.data))
        said = body.pop("effective_from", None)
        change_meter(
            slug,
            read_definition(body),
            effective_from=None if said is None else read_instant(said, "effective_from"),
            by=str(request.user),
        )
        return Response(_meter(versions_of(slug)))


class MeterUsageView(APIView):
    """What a meter counted."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(parameters=[MeterUsageQuery], responses={200: USAGE_OUT})
    def get(self, request: Request, slug: str) -> Response:
        """Count the meter for an organisation, in buckets of a time zone, by its dimensions.

        Each version counts its own part of the period.
        """
        query = MeterUsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        end = asked.get("to") or clock.now()
        start = asked.get("from") or end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        named = [each.strip() for each in asked.get("group_by", "").split(",") if each.strip()]
        versions = versions_of(slug)
        organisation = named_organisation(asked["organisation"])
        zone = zone_named(asked["tz"])
        with tenant_scope(organisation.id):
            counted = usage_of(
                versions, start, end, unit=asked.get("bucket"), zone=zone, dimensions=named
            )
        told = {"meter": slug, "organisation": organisation.slug}
        return Response(told | {"from": instant(start), "to": instant(end)} | _usage(counted))


def _meter(versions: list[Version]) -> dict[str, Any]:
    slug = versions[0].slug
    return {
        "slug": slug,
        "built_in": slug in BUILT_IN,
        "version": at(versions, clock.now()).number,
        "versions": [
            {
                "version": each.number,
                "effective_from": instant(each.effective_from),
                "effective_until": instant(each.effective_until),
                "created_at": instant(each.created_at),
                "created_by": each.created_by,
            }
            | msgspec.to_builtins(each.definition)
            for each in versions
        ],
    }


def _usage(counted: MeterUsage) -> dict[str, Any]:
    return {
        "versions": [
            {
                "version": each.version.number,
                "unit": each.version.definition.unit,
                "from": instant(each.starts_at),
                "to": instant(each.ends_at),
                "skipped": each.skipped,
            }
            for each in counted.versions
        ],
        "rows": [
            {
                "version": row.version,
                "bucket": instant(row.bucket),
                "group": row.group,
                "value": row.value,
            }
            for row in counted.rows
        ],
    }
