"""External usage: events of work that did not pass the gateway, their corrections and backfills.

CloudEvents 1.0 over HTTP, as its binding says: structured (`application/cloudevents+json`), batched
(`application/cloudevents-batch+json`) and binary (`ce-` headers, data as the body).

A batch is answered 200, whatever became of its events: the request as a whole was understood and
carried out. 207 would say the same, but clients and proxies that know nothing of WebDAV treat it
as they please; what is to be read is `results`, and the counts beside it tell whether it need be.
"""

from typing import Any
from urllib.parse import unquote
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api import event_shapes as shapes
from meterplane.api.exact import (
    CloudEvent,
    CloudEventBatch,
    ExactJSON,
    ExactRenderer,
    object_of,
    text_of,
)
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.metering.external import backfills
from meterplane.metering.external.overlays import amend, deprecate
from meterplane.metering.external.queries import (
    PAGE_MAX,
    event_by_receipt,
    history_of,
    list_events,
    receipt_of,
)
from meterplane.metering.external.receive import BATCH_EVENTS_MAX, Outcome, receive
from meterplane.metering.external.shape import SentEvent, read_data, read_event, read_instant
from tenants.scoping import system_scope

PAGE_DEFAULT = 50
BACKFILLS_MAX = 200
_STATUS = {"accepted": 201, "duplicate": 200}
_DOOR = "an operator's program reads external events"


class EventsQuery(serializers.Serializer[Any]):
    """Which events. `cursor` is `next_cursor` of the page before; `from` and `to` are of the time
    that holds, half-open."""

    organisation = serializers.CharField()
    type = serializers.CharField(required=False)
    source = serializers.CharField(required=False)  # type: ignore[assignment]  # DRF keeps fields elsewhere
    id = serializers.CharField(required=False)
    to = serializers.DateTimeField(required=False)
    limit = serializers.IntegerField(default=PAGE_DEFAULT, min_value=1, max_value=PAGE_MAX - 1)
    cursor = serializers.UUIDField(required=False)

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python's."""
        return super().get_fields() | {"from": serializers.DateTimeField(required=False)}


class Events(APIView):
    """External events."""

    parser_classes = (CloudEvent, CloudEventBatch, ExactJSON)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_events_list",
        parameters=[EventsQuery],
        responses={200: shapes.PAGE_SCHEMA},
    )
    def get(self, request: Request) -> Response:
        """List events, the last received first, with what holds of each now."""
        query = EventsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        narrowed = {
            "tenant_id": named_organisation(asked["organisation"]).id,
            "type": asked.get("type"),
            "source": asked.get("source"),
            "event_id": asked.get("id"),
            "start": asked.get("from"),
            "end": asked.get("to"),
            "before": asked.get("cursor"),
        }
        with system_scope(_DOOR):
            found = list_events(narrowed, asked["limit"] + 1)  # one more says if there is a page
        page = found[: asked["limit"]]
        more = len(found) > len(page)
        return Response(
            {
                "events": [shapes.shown(each) for each in page],
                "next_cursor": str(page[-1].event.id) if more else None,
            }
        )

    @extend_schema(
        request={
            "application/cloudevents+json": shapes.EVENT_SCHEMA,
            "application/cloudevents-batch+json": {
                "type": "array",
                "items": shapes.EVENT_SCHEMA,
                "maxItems": BATCH_EVENTS_MAX,
            },
        },
        responses={200: shapes.RESULTS_SCHEMA, 201: shapes.RECEIPT_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Report usage: one event, or up to 1,000.

        One event: 201 with its receipt; 200 with the first receipt if it was there with the same
        content; 409 if it was there with other content; 422 if it cannot be accepted. A batch: 200
        with the result of each event. What is accepted is stored when this answers.
        """
        media = (request.content_type or "").partition(";")[0].strip().lower()
        values = request.data
        by = str(request.user)
        if media == CloudEventBatch.media_type:
            outcomes = receive([_read(each) for each in _batch(values)], received_by=by)
            return Response(_results(values, outcomes))
        value = values if media == CloudEvent.media_type else _binary(request, values)
        (outcome,) = receive([_read(value)], received_by=by)
        if outcome.problem is not None:
            problem = shapes.conflict(outcome)
            if outcome.receipt is not None:
                problem["receipt"] = shapes.receipt(outcome.receipt)
            return Response(
                problem, outcome.problem.status, content_type="application/problem+json"
            )
        stored = outcome.receipt
        return Response(shapes.receipt(stored) if stored else None, _STATUS[outcome.status])


class EventDetail(APIView):
    """One external event."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: shapes.SHOWN_SCHEMA})
    def get(self, request: Request, receipt_id: UUID) -> Response:
        """The event, what holds of it now, and its history."""
        return _detail(receipt_id)


class EventAmend(APIView):
    """A correction of an event."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        request={"application/json": shapes.AMEND_SCHEMA}, responses={200: shapes.SHOWN_SCHEMA}
    )
    def post(self, request: Request, receipt_id: UUID | None = None) -> Response:
        """Let another time, other data or both hold from now on; the event stays as it was sent.

        Named by its receipt in the address, or by `organisation`, `source` and `id` in the body.
        """
        body = object_of(request.data)
        receipt_id = receipt_id or _named(body)
        amend(
            receipt_id,
            at=read_instant(body["time"], "time") if "time" in body else None,
            data=read_data(body["data"]) if "data" in body else None,
            reason=text_of(body, "reason", ""),
            by=str(request.user),
        )
        return _detail(receipt_id)


@extend_schema_view(post=extend_schema(operation_id="v1_events_amend_named"))
class NamedEventAmend(EventAmend):
    """A correction of an event that is known by its own id."""


class EventDeprecate(APIView):
    """The end of an event."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        request={"application/json": shapes.DEPRECATE_SCHEMA}, responses={200: shapes.SHOWN_SCHEMA}
    )
    def post(self, request: Request, receipt_id: UUID | None = None) -> Response:
        """Let the event count no longer. Its id stays taken.

        Named by its receipt in the address, or by `organisation`, `source` and `id` in the body.
        """
        body = object_of(request.data)
        receipt_id = receipt_id or _named(body)
        deprecate(receipt_id, reason=text_of(body, "reason", ""), by=str(request.user))
        return _detail(receipt_id)


@extend_schema_view(post=extend_schema(operation_id="v1_events_deprecate_named"))
class NamedEventDeprecate(EventDeprecate):
    """The end of an event that is known by its own id."""


class Backfills(APIView):
    """Usage that is told again."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_backfills_list",
        parameters=[OpenApiParameter("organisation", required=True)],
        responses={200: {"type": "array", "items": shapes.BACKFILL_SCHEMA}},
    )
    def get(self, request: Request) -> Response:
        """List an organisation's backfills, newest first, at most 200."""
        tenant_id = named_organisation(request.query_params.get("organisation", "")).id
        listed = backfills.list_backfills(tenant_id, BACKFILLS_MAX)
        return Response([shapes.backfill(each) for each in listed])

    @extend_schema(
        request={"application/json": shapes.BACKFILL_IN_SCHEMA},
        responses={201: shapes.BACKFILL_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Open a backfill. Events sent with its id count once it is closed, instead of all others
        of the type in [start, end)."""
        body = object_of(request.data)
        made = backfills.open_backfill(
            tenant_id=named_organisation(text_of(body, "organisation")).id,
            kind=text_of(body, "type"),
            starts_at=read_instant(body.get("start"), "start"),
            ends_at=read_instant(body.get("end"), "end"),
            reason=text_of(body, "reason", ""),
            by=str(request.user),
        )
        return Response(shapes.backfill(made), 201)


class BackfillDetail(APIView):
    """One backfill."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: shapes.BACKFILL_SCHEMA})
    def get(self, request: Request, backfill_id: UUID) -> Response:
        """The backfill."""
        return Response(shapes.backfill(backfills.backfill_by_id(backfill_id)))


class BackfillClose(APIView):
    """The moment a backfill counts from."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(request=None, responses={200: shapes.BACKFILL_SCHEMA})
    def post(self, request: Request, backfill_id: UUID) -> Response:
        """Let what was sent to it count instead of what was in its frame, all at once."""
        return Response(
            shapes.backfill(backfills.close_backfill(backfill_id, by=str(request.user)))
        )


class BackfillRevert(APIView):
    """The end of a backfill."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        request={"application/json": shapes.REASON_SCHEMA}, responses={200: shapes.BACKFILL_SCHEMA}
    )
    def post(self, request: Request, backfill_id: UUID) -> Response:
        """Undo it, or give up an open one: what it replaced counts again."""
        reason = text_of(object_of(request.data), "reason", "")
        done = backfills.revert_backfill(backfill_id, reason=reason, by=str(request.user))
        return Response(shapes.backfill(done))


def _read(value: Any) -> SentEvent | CallerError:
    try:
        return read_event(value)
    except CallerError as wrong:
        return wrong


def _batch(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise CallerError("batch_invalid", "A batch is a JSON array of events.")
    if len(values) > BATCH_EVENTS_MAX:
        raise CallerError(
            "batch_too_large",
            f"{len(values):,} events are more than {BATCH_EVENTS_MAX:,}; send them in parts."
            " Nothing was stored.",
            status=413,
        )
    return values


def _binary(request: Request, data: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        name[3:].lower(): unquote(value)
        for name, value in request.headers.items()
        if name.lower().startswith("ce-")
    }
    if not attributes:
        raise CallerError(
            "media_type",
            f"Send {CloudEvent.media_type}, {CloudEventBatch.media_type}, or the event's attributes"
            " as ce- headers.",
            status=415,
        )
    return attributes | {"data": data}


def _results(values: Any, outcomes: list[Outcome]) -> dict[str, Any]:
    counts = dict.fromkeys(("accepted", "duplicate", "conflict", "invalid"), 0)
    for outcome in outcomes:
        counts[outcome.status] += 1
    results = [
        shapes.result(index, value, outcome)
        for index, (value, outcome) in enumerate(zip(values, outcomes, strict=True))
    ]
    return {**counts, "results": results}


def _named(body: dict[str, Any]) -> UUID:
    organisation = named_organisation(text_of(body, "organisation"))
    source, event_id = text_of(body, "source"), text_of(body, "id")
    with system_scope(_DOOR):
        return receipt_of(organisation.id, source, event_id)


def _detail(receipt_id: UUID) -> Response:
    with system_scope(_DOOR):
        event = event_by_receipt(receipt_id)
        history = history_of(event.event)
    return Response(shapes.shown(event, history))
