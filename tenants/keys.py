"""Issue and revoke API keys.

The secret exists in the return value of `issue_key` and nowhere else. When `revoke_key` returns,
no gateway admits with that key any more.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants import policy_port
from tenants.limits import set_limit
from tenants.models import ApiKey, OperatorKey, Project
from tenants.scoping import tenant_scope

KEYS_PER_ORGANISATION_MAX = 1000  # one recompile touches them all


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key's row, and its secret: show it once, keep it nowhere."""

    key: ApiKey
    secret: str


def issue_key(
    *,
    tenant_id: UUID,
    project_id: UUID,
    name: str,
    created_by: int | None = None,
    expires_at: datetime | None = None,
    monthly_budget_nano: int | None = None,
) -> IssuedKey:
    """Create a key in a project of the organisation.

    Raises `CallerError` `name_required`, `project_not_found`, `expiry_in_past`, `too_many_keys`.
    """
    name = name.strip()
    if not name or len(name) > 80:
        raise CallerError(
            "name_required", "Give the key a name of 1 to 80 characters.", field="name"
        )
    if expires_at is not None and expires_at <= clock.now():
        raise CallerError("expiry_in_past", "Choose an expiry in the future.", field="expires_at")
    with tenant_scope(tenant_id):
        if not Project.objects.filter(id=project_id).exists():
            raise CallerError(
                "project_not_found",
                "There is no such project here.",
                status=404,
                field="project_id",
            )
        check_room_for_a_key()
        minted = api_key.mint("live", settings.API_KEY_PEPPER)
        key = ApiKey.objects.create(
            tenant_id=tenant_id,
            project_id=project_id,
            name=name,
            digest=minted.digest,
            prefix=minted.prefix,
            last4=minted.last4,
            created_by_id=created_by,
            expires_at=expires_at,
        )
        policy_port.recompile(tenant_id)
        if monthly_budget_nano is not None:
            set_limit(
                tenant_id=tenant_id,
                level="key",
                scope_id=key.id,
                kind="spend",
                window="month",
                amount=monthly_budget_nano,
            )
    return IssuedKey(key, minted.secret)


def check_room_for_a_key() -> None:
    """Needs the tenant's door. Raises `CallerError` 409 `too_many_keys`."""
    alive = Q(expires_at__isnull=True) | Q(expires_at__gt=clock.now())
    active = ApiKey.objects.filter(alive, status=ApiKey.Status.ACTIVE)
    if active.count() >= KEYS_PER_ORGANISATION_MAX:
        raise CallerError(
            "too_many_keys",
            f"An organisation has at most {KEYS_PER_ORGANISATION_MAX} active keys; revoke one.",
            status=409,
        )


def renew_key(*, tenant_id: UUID, key_id: UUID, expires_at: datetime) -> IssuedKey:
    """Give a key, revoked or not, another secret, until `expires_at`; the one before is void.

    For who needs a key again and again and keeps no secret: a row each time would be compiled with
    every change of its organisation for ever. Raises `CallerError` `key_not_found`,
    `expiry_in_past`.
    """
    if expires_at <= clock.now():
        raise CallerError("expiry_in_past", "Choose an expiry in the future.", field="expires_at")
    with tenant_scope(tenant_id):
        key: ApiKey | None = ApiKey.objects.select_for_update().filter(id=key_id).first()
        if key is None:
            raise CallerError("key_not_found", "There is no such API key here.", status=404)
        minted = api_key.mint("live", settings.API_KEY_PEPPER)
        key.digest, key.prefix, key.last4 = minted.digest, minted.prefix, minted.last4
        key.status, key.revoked_at, key.expires_at = ApiKey.Status.ACTIVE, None, expires_at
        key.save(update_fields=["digest", "prefix", "last4", "status", "revoked_at", "expires_at"])
        policy_port.recompile(tenant_id)
    return IssuedKey(key, minted.secret)


def revoke_key(*, tenant_id: UUID, key_id: UUID) -> ApiKey:
    """Revoke a key for ever. Revoking a revoked key changes nothing.

    Raises `CallerError` `key_not_found`, or `WorldError` when the gateways could not be told: the
    key is revoked in the database then, and calling again tells them.
    """
    with tenant_scope(tenant_id):
        key: ApiKey | None = ApiKey.objects.select_for_update().filter(id=key_id).first()
        if key is None:
            raise CallerError("key_not_found", "There is no such API key here.", status=404)
        if key.status == ApiKey.Status.ACTIVE:
            key.status = ApiKey.Status.REVOKED
            key.revoked_at = clock.now()
            key.save(update_fields=["status", "revoked_at"])
        policy_port.recompile(tenant_id)
    return key


def issue_operator_key(name: str) -> str:
    """Create a key for the control API and return its secret, once.

    A key of the same name is replaced: the old secret stops working.
    """
    minted = api_key.mint("admin", settings.API_KEY_PEPPER)
    OperatorKey.objects.update_or_create(
        name=name,
        defaults={
            "digest": minted.digest,
            "last4": minted.last4,
            "created_at": clock.now(),
            "revoked_at": None,
        },
    )
    return minted.secret


def operator_key_by_secret(secret: str) -> OperatorKey | None:
    """The live operator key of this secret, if there is one. Malformed secrets cost no read."""
    if not api_key.is_well_formed(secret, "admin"):
        return None
    digest = api_key.digest(secret, settings.API_KEY_PEPPER)
    return OperatorKey.objects.filter(digest=digest, revoked_at__isnull=True).first()
