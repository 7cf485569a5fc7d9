"""Who calls the control API: the bearer of an operator key, and nobody else.

A tenant's inference key is refused here, and an operator key is refused by the gateway.
"""

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tenants.keys import operator_key_by_secret
from tenants.models import OperatorKey


class Operator:
    """The authenticated operator key, in the shape DRF asks of a user."""

    is_authenticated = True

    def __init__(self, key: OperatorKey) -> None:
        self.key = key

    def __str__(self) -> str:
        return f"operator key {self.key}"


class AdminKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer mp_admin_…`."""

    def authenticate(self, request: Request) -> tuple[Operator, None] | None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = operator_key_by_secret(secret.strip())
        if key is None:
            raise AuthenticationFailed("This operator key is not valid; it starts with mp_admin_.")
        return Operator(key), None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="control"'


class OperatorKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI description says it."""

    target_class = "meterplane.api.authentication.AdminKeyAuthentication"
    name = "operatorKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """A bearer token."""
        return {"type": "http", "scheme": "bearer", "description": "mp_admin_…"}
