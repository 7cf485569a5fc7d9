"""Who calls: an API key, or a worker with a pass for one line of that key's batch. No I/O."""

from uuid import UUID

import msgspec

from meterplane.contracts import batch_pass
from meterplane.contracts.policy import KeyPolicy
from meterplane.contracts.usage import ServiceTier, Surface
from meterplane.gateway import errors
from meterplane.gateway.addresses import check_address
from meterplane.gateway.authenticate import bearer_digest
from meterplane.kernel import clock


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The digest of a key, and the address it is used from where that is known.

    `request_id` is fixed for a line of a batch, None for anyone else. A line comes from our own
    worker: where its batch came from was checked when that was made.
    """

    digest: bytes
    tier: ServiceTier = "standard"
    request_id: UUID | None = None
    address: str = ""


def identify(authorization: bytes | None, pepper: bytes, address: str = "") -> Caller:
    """The caller in an Authorization header. Raises `CallerError` 401."""
    if authorization is not None and authorization[:17].lower() == _BATCH:
        found = batch_pass.verify(authorization[17:].strip(), pepper, clock.now_ms())
        if found is None:
            raise errors.pass_invalid()
        return Caller(found.digest, "batch", found.request_id)
    return Caller(bearer_digest(authorization, pepper), address=address)


def check_allowed(policy: KeyPolicy, surface: Surface, caller: Caller) -> None:
    """Raises `CallerError` 403 where the key may not be used on this surface or from there."""
    if policy.surfaces is not None and surface not in policy.surfaces:
        raise errors.surface_not_allowed(surface)
    if policy.ip_ranges is not None and caller.request_id is None:
        check_address(policy.ip_ranges, caller.address)


_BATCH = batch_pass.SCHEME + b" "
