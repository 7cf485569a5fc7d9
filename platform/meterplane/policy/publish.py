"""Tell every gateway that a key's policy has a new version.

Guarantees: when `publish_versions` returns, no gateway admits under an older version: admission
compares versions inside its Lua call. A version is only ever raised, so late or doubled calls
change nothing. Raises `WorldError` when Redis cannot be reached within the patience below: the
change is committed, gateways that have not heard of it re-read within their cache age.
"""

import time
from functools import lru_cache
from uuid import UUID

import redis
from django.conf import settings

from meterplane.contracts import admission_keys
from meterplane.kernel.errors import WorldError

PATIENCE_S = 2.0
PAUSE_S = 0.1

_RAISE = """
for i, key in ipairs(KEYS) do
  local current = redis.call('GET', key)
  if not current or tonumber(ARGV[i]) > tonumber(current) then
    redis.call('SET', key, ARGV[i])
  end
end
return #KEYS
"""


@lru_cache(maxsize=1)
def admission_redis(url: str) -> "redis.Redis":
    """A client of the admission instance, one per process."""
    return redis.Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5)


def publish_versions(tenant_id: UUID, versions: dict[UUID, int]) -> None:
    """Raise the current version of each key, all of one organisation, in one call."""
    if not versions:
        return
    client = admission_redis(settings.ADMISSION_REDIS_URL)
    keys = [admission_keys.version(tenant_id, key_id) for key_id in versions]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.eval(_RAISE, len(keys), *keys, *[str(version) for version in versions.values()])
        except redis.RedisError as failure:
            if time.monotonic() > deadline:
                raise WorldError(
                    "policy_not_published",
                    "The change is stored, but the gateways could not be told yet. "
                    "Repeat the request to confirm it.",
                    retry_after_s=2,
                ) from failure
            time.sleep(PAUSE_S)
        else:
            return
