"""An organisation's credit: grants, those that recur, refunds, and the balance."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.credits import queries
from billing.credits.grant import grant
from billing.credits.recur import end_recurrence, grant_monthly
from billing.credits.refund import refund_credit
from billing.credits.terms import GrantTerms, RecurrenceTerms
from meterplane.api import credit_shapes as shapes
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text, nano_to_text
from meterplane.policy.credit_shown import shown_credit
from meterplane.policy.hold_to_credit import hold_to_credit, release_from_credit
from tenants.models import Organisation
from tenants.scoping import tenant_scope

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    required=True,
    description="Names the grant: asked for again with the same terms, the first one answers.",
)


class Credits(APIView):
    """An organisation's grants."""

    @extend_schema(responses=shapes.CreditOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List grants, newest first, at most 200."""
        with tenant_scope(named_organisation(slug).id):
            rows = queries.list_grants()
        return Response(shapes.CreditOut(rows, many=True).data)

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=shapes.CreditIn,
        responses={201: shapes.CreditDetailOut},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Grant credit, once for its idempotency key."""
        organisation = named_organisation(slug)
        said = _said(shapes.CreditIn, request, organisation)
        grant_id = grant(
            tenant_id=organisation.id,
            terms=GrantTerms(**said),
            idempotency_key=request.headers.get("Idempotency-Key", ""),
            created_by=str(request.user),
        )
        return _detail(organisation, grant_id, 201)


class CreditDetail(APIView):
    """One grant."""

    @extend_schema(responses=shapes.CreditDetailOut)
    def get(self, request: Request, slug: str, grant_id: UUID) -> Response:
        """The grant, what is left of it, and what became of the rest."""
        return _detail(named_organisation(slug), grant_id, 200)


class CreditRefund(APIView):
    """What is left of purchased credit, to be paid back."""

    @extend_schema(request=None, responses=shapes.RefundOut)
    def post(self, request: Request, slug: str, grant_id: UUID) -> Response:
        """Take what is left, once: asked again, the first refund answers."""
        organisation = named_organisation(slug)
        amount_minor = refund_credit(tenant_id=organisation.id, grant_id=grant_id)
        told = {
            "grant_id": grant_id,
            "currency": organisation.currency,
            "refunded": minor_to_text(amount_minor, organisation.currency),
        }
        return Response(shapes.RefundOut(told).data)


class CreditBalance(APIView):
    """An organisation's balance of credit."""

    @extend_schema(responses=shapes.CreditBalanceOut)
    def get(self, request: Request, slug: str) -> Response:
        """What may be drawn now, and what is admitted still."""
        return _balance(named_organisation(slug))


class CreditHold(APIView):
    """Whether an organisation is held to its credit."""

    @extend_schema(request=shapes.CreditHoldIn, responses=shapes.CreditBalanceOut)
    def put(self, request: Request, slug: str) -> Response:
        """From now on refuse what its live credit does not cover, or no longer; the balance then.

        What it used in the running period before that counts.
        """
        organisation = named_organisation(slug)
        body = shapes.CreditHoldIn(data=request.data)
        body.is_valid(raise_exception=True)
        if body.validated_data["held_to_credit"]:
            hold_to_credit(organisation.id)
        else:
            release_from_credit(organisation.id)
        return _balance(organisation)


class RecurringCredits(APIView):
    """Grants that come again each month."""

    @extend_schema(responses=shapes.RecurringCreditOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List them, the latest start first; an organisation has at most 50."""
        with tenant_scope(named_organisation(slug).id):
            rows = queries.list_recurrences()
        return Response(shapes.RecurringCreditOut(rows, many=True).data)

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=shapes.RecurringCreditIn,
        responses={201: shapes.RecurringCreditOut},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Grant each month, once for its idempotency key. What is due is granted at once."""
        organisation = named_organisation(slug)
        said = _said(shapes.RecurringCreditIn, request, organisation)
        recurrence_id = grant_monthly(
            tenant_id=organisation.id,
            terms=RecurrenceTerms(**said),
            idempotency_key=request.headers.get("Idempotency-Key", ""),
            created_by=str(request.user),
        )
        return _recurrence(organisation, recurrence_id, 201)


class RecurringCreditEnd(APIView):
    """The end of a grant that comes again."""

    @extend_schema(request=shapes.RecurrenceEnd, responses=shapes.RecurringCreditOut)
    def post(self, request: Request, slug: str, recurrence_id: UUID) -> Response:
        """Grant nothing that begins at or after an instant. What was granted stays."""
        organisation = named_organisation(slug)
        body = shapes.RecurrenceEnd(data=request.data)
        body.is_valid(raise_exception=True)
        end_recurrence(
            tenant_id=organisation.id,
            recurrence_id=recurrence_id,
            ends_at=body.validated_data["ends_at"],
        )
        return _recurrence(organisation, recurrence_id, 200)


def _said(shape: Any, request: Request, organisation: Organisation) -> dict[str, Any]:
    """The terms as the verbs take them."""
    body = shape(data=request.data)
    body.is_valid(raise_exception=True)
    said: dict[str, Any] = dict(body.validated_data)
    currency = said["currency"] = said["currency"] or organisation.currency
    if currency != organisation.currency:
        raise CallerError(
            "credit_invalid",
            f"Credit is in the organisation's currency, {organisation.currency}.",
            field="currency",
        )
    said["amount_minor"] = shapes.minor_of(said.pop("amount"), currency)
    rollover = said.pop("rollover_max")
    said["rollover_max_minor"] = (
        None if rollover is None else shapes.minor_of(rollover, currency, "rollover_max")
    )
    said["models_only"] = tuple(said.pop("models"))
    said["meters_only"] = tuple(said.pop("meters"))
    return said


def _balance(organisation: Organisation) -> Response:
    with tenant_scope(organisation.id):
        found, shown = queries.balance(), shown_credit()
    currency = organisation.currency
    told = {
        "currency": currency,
        "total": minor_to_text(found.total_minor, currency),
        "purchased": minor_to_text(found.purchased_minor, currency),
        "promotional": minor_to_text(found.promotional_minor, currency),
        "expires_next_at": found.expires_next_at,
        "held_to_credit": shown is not None,
        "spendable": None if shown is None else nano_to_text(shown.spendable_nano),
        "spent": None if shown is None else nano_to_text(shown.spent_nano),
        "held": None if shown is None or shown.held_nano is None else nano_to_text(shown.held_nano),
        "grants": found.grants,
    }
    return Response(shapes.CreditBalanceOut(told).data)


def _detail(organisation: Organisation, grant_id: UUID, status: int) -> Response:
    with tenant_scope(organisation.id):
        found = queries.grant_by_id(grant_id)
        moved = queries.movements_of(grant_id)
    if found is None:
        raise CallerError("credit_not_found", "There is no such grant here.", status=404)
    return Response(shapes.CreditDetailOut(found, context={"movements": moved}).data, status=status)


def _recurrence(organisation: Organisation, recurrence_id: UUID, status: int) -> Response:
    with tenant_scope(organisation.id):
        rows = queries.list_recurrences()
    row = next(each for each in rows if each.id == recurrence_id)
    return Response(shapes.RecurringCreditOut(row).data, status=status)
