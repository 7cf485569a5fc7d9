"""Who calls: an API key, or a worker with a pass for one line of that key's batch. No I/O."""

from uuid import UUID

import msgspec

from meterplane.contracts import batch_pass
from meterplane.contracts.usage import ServiceTier
from meterplane.gateway import errors
from meterplane.gateway.authenticate import bearer_digest
from meterplane.kernel import clock


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The digest of a key; `request_id` is fixed for a line of a batch, None for anyone else."""

    digest: bytes
    tier: ServiceTier = "standard"
    request_id: UUID | None = None


def identify(authorization: bytes | None, pepper: bytes) -> Caller:
    """The caller in an Authorization header. Raises `CallerError` 401."""
    if authorization is not None and authorization[:17].lower() == _BATCH:
        found = batch_pass.verify(authorization[17:].strip(), pepper, clock.now_ms())
        if found is None:
            raise errors.pass_invalid()
        return Caller(found.digest, "batch", found.request_id)
    return Caller(bearer_digest(authorization, pepper))


_BATCH = batch_pass.SCHEME + b" "
