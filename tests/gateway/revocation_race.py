"""Keys that are taken away while they are used as hard as it goes, by many and at once.

What counts is one instant: when the call that takes a key away has returned. It is seen from three
sides that share nothing: callers (nobody who asks later is served), the admission Redis (a counter
of each key stands still) and the journals (no later request is in them).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import redis
from django.db import connections

from meterplane.contracts import admission_keys, windows
from meterplane.contracts.policy import Limit
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.keys import issue_key, revoke_key
from tenants.leaks import report_leak
from tenants.limits import set_limit
from tenants.rotate import rotate_key
from tenants.standing import set_standing
from tests.conftest import OnboardedOrganisation
from tests.gateway.conftest import GatewayProcess
from tests.gateway.deployments import limit_rate

BODY = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1]}]}'
AT_ONCE = 4  # who takes keys away
USED_FIRST = 3  # requests of a key that were served before it is taken away
REFUSED_LATER = 3  # requests of a key that are seen to be refused
GO_ON_S = 1.0  # after that
REFUSED_PAUSE_S = 0.005
DAILY = 10**9  # a limit that is there to be counted under


def revoke(tenant):
    revoke_key(tenant_id=tenant.id, key_id=tenant.key_id)


def leak(tenant):
    report_leak(tenant.secret)


def rotate(tenant):
    rotate_key(tenant_id=tenant.id, key_id=tenant.key_id, overlap=timedelta(0))


def suspend(tenant):
    set_standing(tenant_id=tenant.id, standing="suspended", reason="unpaid")


def forbid(tenant):
    """Not one request a day. (Of one that was used up a lost Redis would know nothing.)"""
    limit_requests(tenant, 0)


def limit_requests(tenant, amount):
    where = {"tenant_id": tenant.id, "level": "key", "scope_id": tenant.key_id}
    set_limit(**where, kind="requests", window="day", amount=amount)


# Of ten victims.
WAYS: Sequence[Callable[[OnboardedOrganisation], None]] = (
    revoke, leak, revoke, suspend, revoke, forbid, revoke, rotate, revoke, leak,
)  # fmt: skip
REFUSALS = {revoke: 401, leak: 401, rotate: 401, suspend: 403, forbid: 429}


@dataclass(slots=True)
class Caller:
    """One connection that asks again as soon as it is answered: when it asked, and the status."""

    url: str
    secret: str
    answers: list[tuple[float, int]] = field(default_factory=list)

    async def ask_on(self) -> None:
        host, _, port = self.url.removeprefix("http://").partition(":")
        request = (
            b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self.secret.encode(), len(BODY), BODY)
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            while True:
                began = time.monotonic()
                writer.write(request)
                status = await _status(reader)
                self.answers.append((began, status))
                if status != 200:
                    await asyncio.sleep(REFUSED_PAUSE_S)
        finally:
            writer.close()

    def served(self) -> int:
        return sum(status == 200 for _, status in self.answers)


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


@dataclass(slots=True)
class Victim:
    """A key that is taken away in one way, who uses it, and what was seen when that returned."""

    tenant: OnboardedOrganisation
    way: Callable[[OnboardedOrganisation], None]
    callers: list[Caller]
    bystander: Caller  # with another key of the organisation
    returned: float = 0.0
    returned_ms: int = 0
    counted: int = 0

    @property
    def refused_later(self) -> int:
        """Requests that came later and were told no, by whatever the way is."""
        return sum(
            asked > self.returned and status == REFUSALS[self.way]
            for caller in self.callers
            for asked, status in caller.answers
        )

    @property
    def served_later(self) -> int:
        """Requests that came later and were served: none may be."""
        return sum(
            asked > self.returned and status == 200
            for caller in self.callers
            for asked, status in caller.answers
        )


def make_victims(
    onboard: Callable[..., OnboardedOrganisation],
    gateways: Sequence[GatewayProcess],
    count: int,
    callers: int,
    ways: Sequence[Callable[[OnboardedOrganisation], None]] = WAYS,
) -> list[Victim]:
    """As many organisations with two keys; callers of each are spread over the gateways."""
    made = []
    for number in range(count):
        tenant = onboard(f"victim-{number}")
        limit_rate(tenant, 6_000_000, 1_000_000)
        limit_requests(tenant, DAILY)
        other = issue_key(tenant_id=tenant.id, project_id=tenant.project_id, name="bystander")
        urls = [gateways[(number + each) % len(gateways)].url for each in range(callers + 1)]
        made.append(
            Victim(
                tenant,
                ways[number % len(ways)],
                [Caller(url, tenant.secret) for url in urls[1:]],
                Caller(urls[0], other.secret),
            )
        )
    connections.close_all()
    return made


async def race(
    victims: list[Victim],
    redis_url: str,
    random_: random.Random,
    meanwhile: Callable[[], None] | None = None,
) -> float:
    """Take every key away while it is used; how many requests were answered in a second.

    `meanwhile` happens in a thread, in the middle of it.
    """
    callers = [each for victim in victims for each in (*victim.callers, victim.bystander)]
    began = time.monotonic()
    asking = [asyncio.create_task(caller.ask_on()) for caller in callers]
    in_order = random_.sample(victims, len(victims))
    try:
        for victim in victims:
            while min(caller.served() for caller in victim.callers) < USED_FIRST:
                await asyncio.sleep(0.01)
                _check(asking)
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(AT_ONCE + 1) as threads:
            taking = [loop.run_in_executor(threads, take, each, redis_url) for each in in_order]
            if meanwhile is not None:
                taking.insert(len(taking) // 2, loop.run_in_executor(threads, meanwhile))
            await asyncio.gather(*taking)
        # However busy the machine is: later requests of each are seen, and for a while.
        while min(victim.refused_later for victim in victims) < REFUSED_LATER:
            await asyncio.sleep(0.1)
            _check(asking)
        await asyncio.sleep(GO_ON_S)
        _check(asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return sum(len(caller.answers) for caller in callers) / (time.monotonic() - began)


def _check(asking: list["asyncio.Task[None]"]) -> None:
    for task in asking:
        if task.done():
            task.result()


def take(victim: Victim, redis_url: str) -> None:
    """Take a key away, and note what there is when that has returned."""
    try:
        while True:
            try:
                victim.way(victim.tenant)
            except WorldError:
                continue  # it says so, and to repeat it
            break
        victim.returned, victim.returned_ms = time.monotonic(), clock.now_ms()
        with contextlib.suppress(redis.RedisError):  # it may be away just then, where that is tried
            victim.counted = counted(victim.tenant, redis_url)
    finally:
        connections.close_all()


def counted(tenant: OnboardedOrganisation, redis_url: str) -> int:
    """What was admitted with the tenant's key, as the admission Redis counts it, in two days."""
    limit = Limit(level="key", scope_id=tenant.key_id, kind="requests", window="day", amount=DAILY)
    now = clock.now()
    names = [
        admission_keys.limit(tenant.id, limit, windows.label("day", at))
        for at in (now, now - timedelta(days=1))
    ]
    with redis.Redis.from_url(redis_url) as admission:
        return sum(int(each or 0) for each in admission.mget(names))


def admits_of(gateways: Sequence[GatewayProcess]) -> dict[UUID, list[int]]:
    """By key, when each request that was admitted came to its gateway: milliseconds, of its id."""
    found: dict[UUID, list[int]] = {}
    for gateway in gateways:
        for admit in gateway.admits():
            found.setdefault(admit.key_id, []).append(admit.request_id.int >> 80)
    return found
