"""Who calls: the project of a live API key. A malformed key costs no read."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from meterplane.batches import refusals
from meterplane.contracts import api_key
from meterplane.kernel import clock
from tenants.models import ApiKey, Organisation
from tenants.scoping import system_scope

AUTHORIZATION_CHARS_MAX = 128  # a live key has 57


@dataclass(frozen=True, slots=True)
class Caller:
    """The project whose files and batches these are, and the key that acts for it."""

    tenant_id: UUID
    project_id: UUID
    key_id: UUID


def secret_of(authorization: str) -> str:
    """The well-formed key of an `Authorization` header. Raises `CallerError` 401 without I/O."""
    scheme, _, credential = authorization.partition(" ")
    secret = credential.strip()
    if (
        len(authorization) > AUTHORIZATION_CHARS_MAX
        or scheme.lower() != "bearer"
        or not api_key.is_well_formed(secret)
    ):
        raise refusals.key_malformed()
    return secret


def identify(authorization: str) -> Caller:
    """The caller of an `Authorization` header. Raises `CallerError` 401 or 403."""
    digest = api_key.digest(secret_of(authorization), settings.API_KEY_PEPPER)
    with system_scope("an API key tells whose request this is"):
        key = ApiKey.objects.select_related("tenant").filter(digest=digest).first()
    if key is None or key.status != ApiKey.Status.ACTIVE:
        raise refusals.key_unknown()
    if key.expires_at is not None and key.expires_at <= clock.now():
        raise refusals.key_unknown()
    if key.tenant.standing == Organisation.Standing.SUSPENDED:
        raise refusals.account_suspended(key.tenant.standing_reason)
    return Caller(key.tenant_id, key.project_id, key.id)
