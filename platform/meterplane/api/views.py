"""The control API's endpoints. Thin: parse, open the tenant's door, call a verb or a query."""

from datetime import timedelta
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing import queries as invoicing
from meterplane.api import serializers
from meterplane.api.organisations import named_organisation
from meterplane.catalog.models import Model
from meterplane.kernel.errors import CallerError
from tenants import keys, onboard
from tenants import queries as tenants
from tenants.models import Organisation
from tenants.rotate import rotate_key
from tenants.scoping import system_scope, tenant_scope

ORGANISATIONS_PAGE_MAX = 200


class Organisations(APIView):
    """All organisations, and new ones."""

    @extend_schema(responses=serializers.OrganisationOut(many=True))
    def get(self, request: Request) -> Response:
        """List organisations by name, at most 200."""
        with system_scope("an operator key lists organisations"):
            rows = list(Organisation.objects.select_related("plan")[:ORGANISATIONS_PAGE_MAX])
        return Response(serializers.OrganisationOut(rows, many=True).data)

    @extend_schema(request=serializers.OrganisationIn, responses={201: serializers.OrganisationOut})
    def post(self, request: Request) -> Response:
        """Create an organisation with a project `default` and an owner."""
        body = serializers.OrganisationIn(data=request.data)
        body.is_valid(raise_exception=True)
        made = onboard.create_organisation(**body.validated_data)
        return Response(serializers.OrganisationOut(made.organisation).data, status=201)


class OrganisationDetail(APIView):
    """One organisation."""

    @extend_schema(responses=serializers.OrganisationOut)
    def get(self, request: Request, slug: str) -> Response:
        """The organisation."""
        return Response(serializers.OrganisationOut(named_organisation(slug)).data)


class Keys(APIView):
    """An organisation's API keys."""

    @extend_schema(responses=serializers.KeyOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List keys, newest first."""
        with tenant_scope(named_organisation(slug).id):
            rows = list(tenants.list_keys())
        return Response(serializers.KeyOut(rows, many=True).data)

    @extend_schema(request=serializers.KeyIn, responses={201: serializers.KeyCreated})
    def post(self, request: Request, slug: str) -> Response:
        """Create a key. The secret is in this answer and nowhere else."""
        body = serializers.KeyIn(data=request.data)
        body.is_valid(raise_exception=True)
        tenant_id = named_organisation(slug).id
        with tenant_scope(tenant_id):
            project = tenants.list_projects().filter(slug=body.validated_data["project"]).first()
            if project is None:
                raise CallerError("project_not_found", "There is no such project.", status=404)
            issued = keys.issue_key(
                tenant_id=tenant_id,
                project_id=project.id,
                name=body.validated_data["name"],
                expires_at=body.validated_data["expires_at"],
            )
            shown = serializers.KeyOut(issued.key).data | {"secret": issued.secret}
        return Response(shown, status=201)


class KeyDetail(APIView):
    """One API key."""

    @extend_schema(responses=serializers.KeyOut)
    def delete(self, request: Request, slug: str, key_id: UUID) -> Response:
        """Revoke the key. When this answers, no gateway admits with it any more."""
        tenant_id = named_organisation(slug).id
        keys.revoke_key(tenant_id=tenant_id, key_id=key_id)
        with tenant_scope(tenant_id):
            return Response(serializers.KeyOut(tenants.list_keys().get(id=key_id)).data)


class KeyRotation(APIView):
    """The successor of an API key."""

    @extend_schema(request=serializers.RotationIn, responses={201: serializers.KeyCreated})
    def post(self, request: Request, slug: str, key_id: UUID) -> Response:
        """Rotate the key: a successor with its limits, and for a while both work.

        The successor's secret is in this answer and nowhere else.
        """
        body = serializers.RotationIn(data=request.data)
        body.is_valid(raise_exception=True)
        tenant_id = named_organisation(slug).id
        overlap = timedelta(hours=body.validated_data["overlap_hours"])
        issued = rotate_key(tenant_id=tenant_id, key_id=key_id, overlap=overlap)
        with tenant_scope(tenant_id):
            row = tenants.list_keys().get(id=issued.key.id)
            shown = serializers.KeyOut(row).data | {"secret": issued.secret}
        return Response(shown, status=201)


class ModelReservations(APIView):
    """What the requests of a model hold in budgets."""

    @extend_schema(responses=serializers.ModelReservationsOut)
    def get(self, request: Request, name: str) -> Response:
        """What requests of the last seven days held above their cost, and what answers needed.

        Read once an hour; empty before there were requests.
        """
        model = Model.objects.filter(name=name).first()
        if model is None:
            raise CallerError("model_not_found", f"No model {name[:80]!r}.", status=404)
        return Response(serializers.ModelReservationsOut(model).data)


class Invoices(APIView):
    """An organisation's invoices."""

    @extend_schema(responses=serializers.InvoiceOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List invoices, newest first, at most 200."""
        with tenant_scope(named_organisation(slug).id):
            rows = list(invoicing.list_invoices()[:200])
        return Response(serializers.InvoiceOut(rows, many=True).data)
