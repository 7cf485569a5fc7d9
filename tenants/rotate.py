"""Rotate an API key: a successor takes its place, and both work for a while.

The successor is the same key to everything but its secret: project, name, expiry and restrictions
are its predecessor's, and both draw on the same limits. When `rotate_key` returns, every gateway
knows when the predecessor ends. A key is replaced once; its successor is the one to rotate next.
"""

from datetime import timedelta
from uuid import UUID

from django.conf import settings

from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants import policy_port
from tenants.keys import IssuedKey, check_room_for_a_key
from tenants.models import ApiKey, Restriction
from tenants.scoping import tenant_scope

OVERLAP_DEFAULT = timedelta(hours=24)
OVERLAP_MAX = timedelta(days=30)
_RESTRICTED = ("set_by", "allowed_models", "surfaces", "ip_ranges", "request_tokens_max")


def rotate_key(
    *,
    tenant_id: UUID,
    key_id: UUID,
    overlap: timedelta = OVERLAP_DEFAULT,
    created_by: int | None = None,
) -> IssuedKey:
    """Issue the successor of a key, which ends after `overlap`, never later than it would have.

    Without any overlap it is revoked. The secret is in the answer and nowhere else.

    Raises `CallerError` `overlap_out_of_range`, `key_not_found`, `key_revoked`, `key_expired`,
    `key_replaced`, `too_many_keys`; `WorldError` when the gateways could not be told: the key is
    rotated in the database then, and its successor's secret lost, so that one is to be rotated.
    """
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise CallerError(
            "overlap_out_of_range",
            f"Let both keys work for 0 to {OVERLAP_MAX.days} days.",
            field="overlap",
        )
    with tenant_scope(tenant_id):
        key: ApiKey | None = ApiKey.objects.select_for_update().filter(id=key_id).first()
        if key is None:
            raise CallerError("key_not_found", "There is no such API key here.", status=404)
        _check_rotatable(key)
        check_room_for_a_key()
        minted = api_key.mint("live", settings.API_KEY_PEPPER)
        successor = ApiKey.objects.create(
            tenant_id=tenant_id,
            project_id=key.project_id,
            name=key.name,
            digest=minted.digest,
            prefix=minted.prefix,
            last4=minted.last4,
            created_by_id=created_by,
            expires_at=key.expires_at,
            limits_scope_id=key.limits_scope_id or key.id,
            replaces=key,
        )
        _restrict_alike(successor, key)
        _end_after(key, overlap)
        policy_port.recompile(tenant_id)
    return IssuedKey(successor, minted.secret)


def _check_rotatable(key: ApiKey) -> None:
    if key.status == ApiKey.Status.REVOKED:
        raise CallerError(
            "key_revoked", "This key is revoked; create a new one instead.", status=409
        )
    if key.expires_at is not None and key.expires_at <= clock.now():
        raise CallerError("key_expired", "This key has ended; create a new one.", status=409)
    successor = ApiKey.objects.filter(replaces_id=key.id).first()
    if successor is not None:
        raise CallerError(
            "key_replaced",
            f"This key was rotated already; rotate its successor, …{successor.last4}.",
            status=409,
        )


def _restrict_alike(successor: ApiKey, key: ApiKey) -> None:
    """Unlike limits, what a key may be used for is said of each key by itself."""
    said = Restriction.objects.filter(level="key", scope_id=key.id).values(*_RESTRICTED)
    Restriction.objects.bulk_create(
        Restriction(tenant_id=key.tenant_id, level="key", scope_id=successor.id, **each)
        for each in said
    )


def _end_after(key: ApiKey, overlap: timedelta) -> None:
    now = clock.now()
    if not overlap:
        key.status, key.revoked_at = ApiKey.Status.REVOKED, now
    else:
        ends_at = now + overlap
        key.expires_at = ends_at if key.expires_at is None else min(ends_at, key.expires_at)
    key.save(update_fields=["status", "revoked_at", "expires_at"])
