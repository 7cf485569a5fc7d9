"""The inbox of provider events, for operators: what came, what came of it, and processing again."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.payments.inbox import events_listed, process_again
from billing.payments.models import WebhookEvent
from meterplane.api.reconciliation import instant
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope

STATES = ("waiting", "failing", "processed")
EVENTS_SHOWN = 200


class WebhookEventOut(serializers.ModelSerializer[WebhookEvent]):
    """An event. Unprocessed: `processed_at` is null, and `failures` tries came to nothing, the last
    one for the reason in `failure`; the next is at `try_at`."""

    class Meta:
        model = WebhookEvent
        fields = (
            "event_id", "type", "origin", "received_at", "processed_at", "outcome", "failures",
            "failure", "try_at", "payload",
        )  # fmt: skip
        read_only_fields = fields


class WebhookEvents(APIView):
    """What the payment provider told us."""

    @extend_schema(
        operation_id="webhook_events",
        parameters=[
            OpenApiParameter("state", enum=STATES),
            OpenApiParameter("type"),
            OpenApiParameter("before", type=OpenApiTypes.DATETIME),
        ],
        responses=WebhookEventOut(many=True),
    )
    def get(self, request: Request) -> Response:
        """The newest 200, received before an instant where one is given."""
        state = request.query_params.get("state", "")
        if state and state not in STATES:
            known = ", ".join(STATES)
            raise CallerError("state_unknown", f"A state is one of {known}.", field="state")
        with system_scope("an operator key reads the inbox"):
            rows = events_listed(
                type_=request.query_params.get("type", ""),
                state=state,
                before=instant(request, "before"),
                most=EVENTS_SHOWN,
            )
        return Response(WebhookEventOut(rows, many=True).data)


class WebhookEventAgain(APIView):
    """Processing an event once more."""

    @extend_schema(
        operation_id="webhook_event_process_again",
        request=None,
        responses={202: WebhookEventOut},
    )
    def post(self, request: Request, event_id: str) -> Response:
        """Read what the event is about anew, and apply what it is now, within seconds."""
        with system_scope(f"{request.user} has an event processed again"):
            row = process_again(event_id)
        return Response(WebhookEventOut(row).data, status=202)
