"""Plans, and the limits, restrictions and balance of an organisation.

What is changed here holds when the answer comes: no gateway admits by what was before.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from meterplane.api import limit_shapes as shapes
from meterplane.api.organisations import named_organisation
from meterplane.api.serializers import OrganisationOut
from meterplane.kernel.errors import CallerError
from meterplane.policy.limits_shown import ShownLimit, shown_limits
from tenants import limits as verbs
from tenants.models import Organisation, Plan, Restriction
from tenants.plans import set_plan_limits
from tenants.scoping import tenant_scope

PLANS_MAX = 200
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    required=True,
    description="Names the payment: told of it again, nothing is paid in.",
)


def _body(shape: Any, request: Request) -> dict[str, Any]:
    body = shape(data=request.data)
    body.is_valid(raise_exception=True)
    said: dict[str, Any] = body.validated_data
    return said


def _shown(organisation: Organisation) -> list[ShownLimit]:
    with tenant_scope(organisation.id):
        return [limit for scope in shown_limits(organisation) for limit in scope.limits]


class Plans(APIView):
    """All plans."""

    @extend_schema(responses=shapes.PlanOut(many=True))
    def get(self, request: Request) -> Response:
        """List plans by name, at most 200."""
        return Response(shapes.PlanOut(Plan.objects.all()[:PLANS_MAX], many=True).data)


class PlanDetail(APIView):
    """One plan."""

    @extend_schema(responses=shapes.PlanOut)
    def get(self, request: Request, slug: str) -> Response:
        """The plan."""
        plan = Plan.objects.filter(slug=slug).first()
        if plan is None:
            raise CallerError("plan_not_found", f"There is no plan {slug!r}.", status=404)
        return Response(shapes.PlanOut(plan).data)

    @extend_schema(request=shapes.PlanIn, responses=shapes.PlanOut)
    def put(self, request: Request, slug: str) -> Response:
        """Make the plan, or replace what it says for every organisation on it."""
        said = _body(shapes.PlanIn, request)
        plan = set_plan_limits(
            slug=slug,
            name=said["name"],
            description=said["description"],
            limits=[shapes.terms(each) for each in said["limits"]],
            restrictions=said["restrictions"],
        )
        return Response(shapes.PlanOut(plan).data)


class OrganisationPlan(APIView):
    """Which plan an organisation is on."""

    @extend_schema(request=shapes.PlanChoice, responses=OrganisationOut)
    def put(self, request: Request, slug: str) -> Response:
        """Move the organisation to a plan, or to none."""
        said = _body(shapes.PlanChoice, request)
        verbs.set_plan(tenant_id=named_organisation(slug).id, slug=said["plan"])
        return Response(OrganisationOut(named_organisation(slug)).data)


class OrganisationPriority(APIView):
    """Who is served first."""

    @extend_schema(request=shapes.PriorityBody, responses=OrganisationOut)
    def put(self, request: Request, slug: str) -> Response:
        """Set the organisation's class and its weight among those of its class."""
        said = _body(shapes.PriorityBody, request)
        verbs.set_priority(tenant_id=named_organisation(slug).id, **said)
        return Response(OrganisationOut(named_organisation(slug)).data)


class Limits(APIView):
    """An organisation's limits, its projects' and its keys'."""

    @extend_schema(responses=shapes.LimitOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """What holds at each scope: the organisation, then each project with its keys."""
        return Response(shapes.LimitOut(_shown(named_organisation(slug)), many=True).data)

    @extend_schema(request=shapes.LimitIn, responses=shapes.LimitOut)
    def put(self, request: Request, slug: str) -> Response:
        """Set one limit of one scope, instead of the plan's. Ends a raise of it.

        A smaller one that the organisation set for itself there goes on holding.
        """
        organisation = named_organisation(slug)
        said = shapes.terms(_body(shapes.LimitIn, request))
        said["scope_id"] = _scope(said, organisation)
        row = verbs.set_limit(tenant_id=organisation.id, **said)
        return _limit(organisation, row.id)


class LimitDetail(APIView):
    """One limit that is set for an organisation, or by it."""

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, limit_id: UUID) -> Response:
        """Remove it: the plan's holds again, or nothing."""
        verbs.remove_limit(tenant_id=named_organisation(slug).id, limit_id=limit_id)
        return Response(status=204)


class LimitRaise(APIView):
    """A limit that is raised for a time."""

    @extend_schema(request=shapes.RaiseIn, responses=shapes.LimitOut)
    def post(self, request: Request, slug: str, limit_id: UUID) -> Response:
        """Let another amount hold until an instant; then what is set holds again, by itself."""
        organisation = named_organisation(slug)
        said = _body(shapes.RaiseIn, request)
        found = next((e for e in _shown(organisation) if e.limit_id == limit_id), None)
        if found is None:
            raise CallerError("limit_not_found", "There is no such limit here.", status=404)
        verbs.raise_temporarily(
            tenant_id=organisation.id,
            limit_id=limit_id,
            amount=shapes.amount_of(found.kind, said["amount"]) or 0,
            until=said["until"],
        )
        return _limit(organisation, limit_id)


class Restrictions(APIView):
    """What the keys of an organisation may be used for, and from where."""

    @extend_schema(responses=shapes.RestrictionBody(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """What is said at each scope; a key is bound by what is said at each of its levels."""
        with tenant_scope(named_organisation(slug).id):
            rows = list(Restriction.objects.order_by("level", "scope_id", "set_by"))
        return Response(shapes.RestrictionBody(rows, many=True).data)

    @extend_schema(request=shapes.RestrictionBody, responses=shapes.RestrictionBody)
    def put(self, request: Request, slug: str) -> Response:
        """Say what holds at one scope, all of it; nothing said forbids nothing."""
        organisation = named_organisation(slug)
        said = _body(shapes.RestrictionBody, request)
        said["scope_id"] = _scope(said, organisation)
        allowed = said.pop("allowed_models")
        row = verbs.set_restriction(tenant_id=organisation.id, models=allowed, **said)
        nothing = Restriction(level=said["level"], scope_id=said["scope_id"])
        return Response(shapes.RestrictionBody(row or nothing).data)


class Balance(APIView):
    """An organisation's prepaid balance."""

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY], request=shapes.PaymentIn, responses=shapes.BalanceOut
    )
    def post(self, request: Request, slug: str) -> Response:
        """Pay in. The first payment makes the organisation a prepaid one."""
        organisation = named_organisation(slug)
        amount = shapes.amount_of("spend", _body(shapes.PaymentIn, request)["amount"]) or 0
        verbs.add_balance(
            tenant_id=organisation.id,
            nano=amount,
            reference=request.headers.get("Idempotency-Key", ""),
        )
        balance = next(each for each in _shown(organisation) if each.window == "prepaid")
        told = {
            "currency": organisation.currency,
            "paid_in": shapes.amount_text("spend", balance.amount),
            "spent": shapes.amount_text("spend", balance.spent_nano),
            "left": shapes.amount_text("spend", balance.left_nano),
        }
        return Response(shapes.BalanceOut(told).data, status=201)


def _scope(said: dict[str, Any], organisation: Organisation) -> UUID:
    """The scope that is meant: an organisation need not be named twice."""
    scope_id: UUID | None = said["scope_id"]
    if scope_id is not None:
        return scope_id
    if said["level"] == "organisation":
        return organisation.id
    raise CallerError("limit_invalid", "Name the project or the key by its id.", field="scope_id")


def _limit(organisation: Organisation, limit_id: UUID) -> Response:
    limit = next(each for each in _shown(organisation) if each.limit_id == limit_id)
    return Response(shapes.LimitOut(limit).data)
