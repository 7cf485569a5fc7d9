"""What was told of an organisation's limits, and below which balance it is told."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api import limit_shapes as shapes
from meterplane.api.organisations import named_organisation
from meterplane.policy.alerts_shown import PAGE_MAX, ShownAlert, list_alerts
from meterplane.policy.models import Alert
from tenants import limits as verbs
from tenants.models import Organisation
from tenants.queries import balance_floor_nano, paid_in_nano
from tenants.scoping import tenant_scope

PAGE_DEFAULT = 50


class AlertsQuery(serializers.Serializer[Any]):
    """Which alerts. `cursor` is `next_cursor` of the page before."""

    limit = serializers.IntegerField(
        required=False, default=PAGE_DEFAULT, min_value=1, max_value=PAGE_MAX
    )
    cursor = serializers.UUIDField(required=False, default=None, allow_null=True)
    threshold = serializers.ChoiceField(
        choices=Alert.Threshold.values, required=False, default=None, allow_null=True
    )


class AlertOut(serializers.Serializer[Any]):
    """One thing that was told once of a limit in one window.

    `threshold` 50, 80, 100: so many per cent of a budget or of a day's quota were used. 100 is told
    of one that is enforced, too, when at least 80 are and a request was refused: what is left
    serves nobody. `hit`: a limit refused a request, or would have in mode `notify`. `balance`: a
    prepaid balance is low. Of several shares that are reached at once the highest is told alone.

    `label` is the window: a day, an ISO week, a month, `lifetime`; of rates and requests at once
    the UTC hour; of a prepaid balance what was paid in by then, of prepaid credit the newest grant
    and of both `amount` is all that there ever was. `used` and `amount` are decimal
    text, as they were at `raised_at`; `used` null where metered usage does not tell. `hits` are the
    requests that were refused, or would have been, and grows while the window lasts.
    """

    id = serializers.UUIDField()
    threshold = serializers.ChoiceField(choices=Alert.Threshold.values)
    level = serializers.ChoiceField(choices=shapes.LEVELS)
    scope_id = serializers.UUIDField()
    scope_name = serializers.CharField(allow_blank=True)
    model = serializers.CharField(allow_blank=True)
    kind = serializers.ChoiceField(choices=shapes.KINDS)
    window = serializers.ChoiceField(choices=shapes.WINDOWS)
    mode = serializers.ChoiceField(choices=shapes.MODES, allow_blank=True)
    label = serializers.SerializerMethodField()  # type: ignore[assignment]  # DRF keeps fields elsewhere
    used = serializers.SerializerMethodField()
    amount = serializers.SerializerMethodField()
    hits = serializers.IntegerField()
    raised_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)

    def get_label(self, alert: ShownAlert) -> str:
        """Which window."""
        return alert.label

    def get_used(self, alert: ShownAlert) -> str | None:
        """Decimal text."""
        return shapes.amount_text(alert.kind, alert.used)

    def get_amount(self, alert: ShownAlert) -> str | None:
        """Decimal text."""
        return shapes.amount_text(alert.kind, alert.amount)


class AlertPage(serializers.Serializer[Any]):
    """Alerts, the newest first. `next_cursor` null: there are no older ones."""

    alerts = AlertOut(many=True)
    next_cursor = serializers.UUIDField(allow_null=True)


class BalanceAlertIn(serializers.Serializer[Any]):
    """Below which balance it is told; "0": never; null: a tenth of the last payment."""

    below = serializers.CharField(max_length=shapes.TEXT_MAX, allow_null=True)


class BalanceAlertOut(serializers.Serializer[Any]):
    """What the organisation chose, null for nothing, and what holds now."""

    currency = serializers.CharField()
    below = serializers.CharField(allow_null=True)
    below_now = serializers.CharField()


class Alerts(APIView):
    """What was told of an organisation's limits."""

    @extend_schema(parameters=[AlertsQuery], responses=AlertPage)
    def get(self, request: Request, slug: str) -> Response:
        """List alerts, the newest first."""
        query = AlertsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        with tenant_scope(named_organisation(slug).id):
            # One more says whether there is another page.
            found = list_alerts(asked["limit"] + 1, asked["cursor"], asked["threshold"])
        page = found[: asked["limit"]]
        more = len(found) > len(page)
        told = {"alerts": page, "next_cursor": page[-1].id if more else None}
        return Response(AlertPage(told).data)


class BalanceAlert(APIView):
    """Below which prepaid balance an organisation is told."""

    @extend_schema(responses=BalanceAlertOut)
    def get(self, request: Request, slug: str) -> Response:
        """What holds."""
        return Response(_balance_alert(named_organisation(slug)))

    @extend_schema(request=BalanceAlertIn, responses=BalanceAlertOut)
    def put(self, request: Request, slug: str) -> Response:
        """Choose the balance. It is compared when there is usage, every half a minute."""
        body = BalanceAlertIn(data=request.data)
        body.is_valid(raise_exception=True)
        nano = shapes.amount_of("spend", body.validated_data["below"], field="below")
        verbs.set_balance_alert(tenant_id=named_organisation(slug).id, nano=nano)
        return Response(_balance_alert(named_organisation(slug)))


def _balance_alert(organisation: Organisation) -> dict[str, Any]:
    with tenant_scope(organisation.id):
        floor_nano = balance_floor_nano(organisation, paid_in_nano(organisation))
    told = {
        "currency": organisation.currency,
        "below": shapes.amount_text("spend", organisation.balance_alert_nano),
        "below_now": shapes.amount_text("spend", floor_nano),
    }
    data: dict[str, Any] = BalanceAlertOut(told).data
    return data
