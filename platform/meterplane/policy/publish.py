"""Tell every gateway that a key's policy has a new version.

Guarantees: when `publish_versions` returns, no gateway admits under an older version: admission
compares versions inside its Lua call. A version is only ever raised, so late or doubled calls
change nothing. Raises `WorldError` when Redis cannot be reached within the patience below: the
change is committed, gateways that have not heard of it re-read within their cache age.

A Redis that is new knows no versions, and a late call must not tell it an old one as if it were
current: a newer change may have been told to the Redis before it. So what is absent is set only to
what was read from PostgreSQL while that Redis had begun, which its epoch says.
"""

import secrets
import time
from functools import lru_cache
from uuid import UUID

import redis
from django.conf import settings

from meterplane.contracts import admission_keys
from meterplane.kernel.errors import WorldError
from meterplane.policy.models import GatewayPolicy
from tenants.scoping import tenant_scope

PATIENCE_S = 2.0
PAUSE_S = 0.1

# KEYS[1] epoch   KEYS[2..] versions
# ARGV[1] epoch to open when there is none   ARGV[2] the epoch the versions were read in; empty:
# before anything is known of it   ARGV[3..] versions
# Answers the epoch, and how many versions it lacks still.
_RAISE = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1]
  redis.call('SET', KEYS[1], epoch)
end
local absent = 0
for i = 2, #KEYS do
  local current, version = redis.call('GET', KEYS[i]), ARGV[i + 1]
  if not current and ARGV[2] ~= epoch then
    absent = absent + 1
  elseif not current or tonumber(version) > tonumber(current) then
    redis.call('SET', KEYS[i], version)
  end
end
return {epoch, absent}
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
    deadline = time.monotonic() + PATIENCE_S
    read_in = ""
    while True:
        try:
            epoch, absent = _raise(client, tenant_id, versions, read_in)
            if not absent:
                return
            read_in, versions = epoch, _stored(tenant_id, versions)
        except redis.RedisError as failure:
            if time.monotonic() > deadline:
                raise _untold() from failure
            time.sleep(PAUSE_S)
        if time.monotonic() > deadline + PATIENCE_S:  # it forgets as often as it is told
            raise _untold()


def _untold() -> WorldError:
    return WorldError(
        "policy_not_published",
        "The change is stored, but the gateways could not be told yet. "
        "Repeat the request to confirm it.",
        retry_after_s=2,
    )


def _raise(
    client: "redis.Redis", tenant_id: UUID, versions: dict[UUID, int], read_in: str
) -> tuple[str, int]:
    keys = [admission_keys.epoch(tenant_id)]
    keys += [admission_keys.version(tenant_id, key_id) for key_id in versions]
    arguments = [secrets.token_hex(10), read_in, *[str(each) for each in versions.values()]]
    epoch, absent = client.eval(_RAISE, len(keys), *keys, *arguments)
    return epoch.decode(), absent


def _stored(tenant_id: UUID, versions: dict[UUID, int]) -> dict[UUID, int]:
    """What is current of these keys; one whose policy has gone meanwhile keeps what it was told."""
    with tenant_scope(tenant_id):
        rows = GatewayPolicy.objects.filter(key_id__in=versions)
        return versions | dict(rows.values_list("key_id", "version"))
