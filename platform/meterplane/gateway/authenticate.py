"""From an Authorization header to a policy. A malformed key dies before any I/O."""

from functools import lru_cache

from meterplane.contracts import api_key
from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway import errors
from meterplane.gateway.policies import Policies, Standing
from meterplane.kernel import clock
from meterplane.kernel.limits import POLICY_CACHE_AGE_S_MAX, REFUSING_POLICY_AGE_S_MAX

KEY_CHARS_MAX = 128  # a live key has 57
DIGESTS_HELD_MAX = 8192  # x ~450 bytes = 4 MB; one more costs its key a CRC and an HMAC


def bearer_digest(authorization: bytes | None, pepper: bytes) -> bytes:
    """The digest to look a key up by. Raises `CallerError` 401 without any I/O if malformed."""
    if authorization is None or len(authorization) > KEY_CHARS_MAX:
        raise errors.key_malformed()
    return _digest(authorization, pepper)


@lru_cache(maxsize=DIGESTS_HELD_MAX)
def _digest(authorization: bytes, pepper: bytes) -> bytes:
    """Held by the whole header, never by a part of a credential; what raises is not held."""
    scheme, _, credential = authorization.partition(b" ")
    candidate = credential.strip()
    if scheme.lower() != b"bearer" or not candidate.isascii():
        raise errors.key_malformed()
    secret = candidate.decode()
    if not api_key.is_well_formed(secret):
        raise errors.key_malformed()
    return api_key.digest(secret, pepper)


async def authenticate(
    digest: bytes, policies: Policies, age_s_max: float = POLICY_CACHE_AGE_S_MAX
) -> KeyPolicy:
    """The usable policy of a key. Raises `CallerError` 401 or 403, `WorldError` 503.

    Routes that are not admitted pass a small `age_s_max`: nothing else tells them of a revocation.
    """
    policy = policies.held(digest, age_s_max) or await policies.find(digest, age_s_max)
    if policy is not None and not is_usable(policy):
        # What is held may be past: a suspended organisation that has paid infers again at once.
        policy = await policies.find(digest, REFUSING_POLICY_AGE_S_MAX)
    if policy is None:
        raise errors.key_unknown()
    check_usable(policy)
    return policy


def is_usable(policy: KeyPolicy | Standing) -> bool:
    """True if the key may infer, as far as this policy knows."""
    expired = policy.expires_at_ms is not None and clock.now_ms() >= policy.expires_at_ms
    return policy.status == "active" and not expired


def check_usable(policy: KeyPolicy) -> None:
    """Raise what a key that is known but may not infer is told."""
    if policy.status == "suspended":
        raise errors.account_suspended(policy.status_reason)
    if not is_usable(policy):
        raise errors.key_unknown()
