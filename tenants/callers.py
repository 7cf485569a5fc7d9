"""Who calls `/v1` here: the project of a live API key. A malformed key costs no read."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.models import ApiKey, Organisation
from tenants.scoping import system_scope

AUTHORIZATION_CHARS_MAX = 128  # a live key has 57


@dataclass(frozen=True, slots=True)
class Caller:
    """The project that is asked for, and the key that acts for it."""

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
        raise _key_malformed()
    return secret


def identify(authorization: str) -> Caller:
    """The caller of an `Authorization` header. Raises `CallerError` 401 or 403."""
    digest = api_key.digest(secret_of(authorization), settings.API_KEY_PEPPER)
    with system_scope("an API key tells whose request this is"):
        key = ApiKey.objects.select_related("tenant").filter(digest=digest).first()
    if key is None or key.status != ApiKey.Status.ACTIVE:
        raise _key_unknown()
    if key.expires_at is not None and key.expires_at <= clock.now():
        raise _key_unknown()
    if key.tenant.standing == Organisation.Standing.SUSPENDED:
        raise _account_suspended(key.tenant.standing_reason)
    return Caller(key.tenant_id, key.project_id, key.id)


def _key_malformed() -> CallerError:
    """No key, or one that was mistyped."""
    return CallerError(
        "invalid_api_key",
        "The API key is missing or mistyped. Send it as 'Authorization: Bearer mp_live_...'.",
        status=401,
    )


def _key_unknown() -> CallerError:
    """A key nobody issued, or one that was revoked or has expired."""
    return CallerError(
        "invalid_api_key",
        "This API key is not valid here: it may have been revoked or have expired. "
        "Create a new one in the portal under API keys.",
        status=401,
    )


def _account_suspended(reason: str) -> CallerError:
    """The organisation may not infer, nor ask for it."""
    because = f" ({reason})" if reason else ""
    return CallerError(
        "account_suspended",
        f"This organisation is suspended{because}. An owner can settle it in the portal under "
        "Billing.",
        status=403,
    )
