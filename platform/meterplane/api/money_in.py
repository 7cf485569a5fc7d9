"""How an organisation's money comes in: its card, credit bought ahead, and auto-reload.

Cards are typed in and payments made on the provider's pages; here are the addresses of those.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.payments import auto_reload as reloads
from billing.payments import cards, money_in, top_ups
from billing.payments.models import TopUp
from billing.payments.provider import ProviderRefused
from billing.payments.stripe import provider
from meterplane.api import money_in_shapes as shapes
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    required=True,
    description="Names the top-up: asked for again with the same amount, the first one answers.",
)


class PaymentMethods(APIView):
    """What an organisation is charged by."""

    @extend_schema(operation_id="payment_methods", responses=shapes.PaymentMethodsOut)
    def get(self, request: Request, slug: str) -> Response:
        """The default card."""
        with tenant_scope(named_organisation(slug).id):
            return Response(shapes.PaymentMethodsOut({"default": money_in.card()}).data)


class CardSession(APIView):
    """A visit to the page where a card is typed in."""

    @extend_schema(operation_id="card_session", request=None, responses={201: shapes.RedirectOut})
    def post(self, request: Request, slug: str) -> Response:
        """Open one; the card becomes the default, and invoices that waited for it are charged."""
        organisation = named_organisation(slug)
        with _refusals():
            url = cards.open_card_setup(organisation.id, provider(), by=str(request.user))
        return Response(shapes.RedirectOut({"url": url}).data, status=201)


class PortalSession(APIView):
    """A visit to the provider's page of cards, invoices and receipts."""

    @extend_schema(operation_id="portal_session", request=None, responses={201: shapes.RedirectOut})
    def post(self, request: Request, slug: str) -> Response:
        """Open one. Whoever has the address acts for the customer: hand it to nobody else."""
        organisation = named_organisation(slug)
        with _refusals():
            url = cards.open_billing_portal(organisation.id, provider())
        return Response(shapes.RedirectOut({"url": url}).data, status=201)


class TopUps(APIView):
    """Credit bought ahead."""

    @extend_schema(operation_id="top_ups", responses=shapes.TopUpOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List them, newest first, at most 200."""
        with tenant_scope(named_organisation(slug).id):
            rows = money_in.list_top_ups()
        told = [shapes.top_up(row) for row in rows]
        return Response(shapes.TopUpOut(told, many=True).data)

    @extend_schema(
        operation_id="top_up_open",
        parameters=[IDEMPOTENCY_KEY],
        request=shapes.TopUpIn,
        responses={201: shapes.TopUpOpenedOut},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Buy credit, once for its idempotency key; granted once it is paid at `url`."""
        organisation = named_organisation(slug)
        body = shapes.TopUpIn(data=request.data)
        body.is_valid(raise_exception=True)
        at = provider()
        with _refusals():
            top_up = top_ups.buy_credit(
                organisation.id,
                body.validated_data["amount"],
                at,
                idempotency_key=request.headers.get("Idempotency-Key", ""),
                by=str(request.user),
            )
            url = top_ups.checkout_url(top_up, at)
        told = shapes.top_up(money_in.top_up_view(top_up)) | {"url": url or None}
        return Response(shapes.TopUpOpenedOut(told).data, status=201)


class TopUpDetail(APIView):
    """One top-up."""

    @extend_schema(operation_id="top_up", responses=shapes.TopUpOut)
    def get(self, request: Request, slug: str, top_up_id: UUID) -> Response:
        """As it was last heard of."""
        with tenant_scope(named_organisation(slug).id):
            found = money_in.top_up_by_id(top_up_id)
        if found is None:
            raise CallerError("top_up_not_found", "There is no such top-up here.", status=404)
        return Response(shapes.TopUpOut(shapes.top_up(found)).data)


class TopUpCheck(APIView):
    """Looking at a top-up again, parked ones too."""

    @extend_schema(operation_id="top_up_check", request=None, responses=shapes.TopUpOut)
    def post(self, request: Request, slug: str, top_up_id: UUID) -> Response:
        """Read at the provider what became of it, and apply that."""
        organisation = named_organisation(slug)
        with _refusals():
            settled: TopUp = top_ups.settle_top_up(organisation.id, top_up_id, provider())
        return Response(shapes.TopUpOut(shapes.top_up(money_in.top_up_view(settled))).data)


class AutoReload(APIView):
    """Credit that buys itself from the card on file."""

    @extend_schema(operation_id="auto_reload", responses=shapes.AutoReloadOut)
    def get(self, request: Request, slug: str) -> Response:
        """The rules, and where the month stands."""
        return _rules(named_organisation(slug).id)

    @extend_schema(
        operation_id="auto_reload_set",
        request=shapes.AutoReloadIn,
        responses=shapes.AutoReloadOut,
    )
    def put(self, request: Request, slug: str) -> Response:
        """From now on. On needs a card."""
        organisation = named_organisation(slug)
        body = shapes.AutoReloadIn(data=request.data)
        body.is_valid(raise_exception=True)
        terms = reloads.ReloadTerms(**body.validated_data)
        reloads.set_auto_reload(organisation.id, terms, by=str(request.user))
        return _rules(organisation.id)


class AutoReloadResume(APIView):
    """The end of a pause."""

    @extend_schema(operation_id="auto_reload_resume", request=None, responses=shapes.AutoReloadOut)
    def post(self, request: Request, slug: str) -> Response:
        """Charge again after a decline, as the rules say."""
        organisation = named_organisation(slug)
        reloads.resume_auto_reload(organisation.id, by=str(request.user))
        return _rules(organisation.id)


def _rules(tenant_id: UUID) -> Response:
    with tenant_scope(tenant_id):
        found = money_in.auto_reload()
    return Response(shapes.AutoReloadOut(shapes.auto_reload(found)).data)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the provider refuses, as a problem of the caller's."""
    try:
        yield
    except ProviderRefused as refused:
        raise CallerError(
            "provider_refused",
            f"The payment provider refused ({refused.code}): {refused.message}",
            status=409,
        ) from refused
