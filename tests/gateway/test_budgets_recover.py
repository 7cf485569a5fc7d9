"""A lost Redis and a killed gateway cost a budget nothing: what they held comes back, exactly.

Beside the gateway run the shipper and what the worker's schedule runs, step by step.
"""

import asyncio
import contextlib
import signal
import time

import httpx2 as httpx
import psycopg
import pytest
import redis

from meterplane.metering import ship
from meterplane.metering.ingest import ingest_segments
from meterplane.policy.grants import credit_uncredited
from meterplane.policy.stranded import return_stranded
from tests import environment
from tests.conftest import wait_until
from tests.gateway.engine import END, HEAD, Engine, event
from tests.gateway.test_budgets import (
    CHAT,
    INFER,
    PRICE_NANO,
    granted_nano,
    pool_nano,
    reservations,
    set_budget,
)
from tests.metering.test_ship import in_a_thread
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

DOES_NOT_RETURN_S = 120.0  # a busy machine; what it takes on a calm one is printed


def spent_nano(tenant):
    with psycopg.connect(environment.database_url("postgres")) as admin:
        return admin.execute(
            "SELECT COALESCE(sum(cost_nano), 0) FROM usage_event WHERE tenant_id = %s", (tenant.id,)
        ).fetchone()[0]


def held_nano(redis_url, tenant):
    """What the pools of a tenant say that open requests hold."""
    with redis.Redis.from_url(redis_url) as admission:
        pools = admission.keys(f"*{tenant.id}*limit*spend*")
        fields = ("credited", "spent", "left")
        found = [[int(n or 0) for n in admission.hmget(pool, fields)] for pool in pools]
    return sum(credited - spent - left for credited, spent, left in found)


def test_a_budget_is_reached_exactly_however_often_redis_is_lost(
    start_gateway, triton, acme, redis_url
):
    """100 requests fit; Redis forgets everything after 40, 80 and 95 of them."""
    set_budget(acme, "organisation", acme.id, 100 * PRICE_NANO + 1)
    set_budget(acme, "project", acme.project_id, 150 * PRICE_NANO)
    gateway = start_gateway(triton.http_url)
    shipper = ship.Shipper(gateway.journal, send=ingest_segments)
    served, waits, refused_at = 0, [], None
    lose_at = [40, 80, 95]
    give_up_at = time.monotonic() + DOES_NOT_RETURN_S
    with gateway.client(acme.secret) as client:
        while time.monotonic() < give_up_at:
            if lose_at and served >= lose_at[0]:
                lose_at.pop(0)
                with redis.Redis.from_url(redis_url) as admission:
                    admission.flushall()
            answer = client.post(INFER[0], json=INFER[1])
            if answer.status_code == 200:
                served += 1
                if refused_at is not None:
                    waits.append(time.monotonic() - refused_at)
                    refused_at = None
            elif answer.status_code == 402:
                break
            else:
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
                refused_at = refused_at or time.monotonic()
                time.sleep(0.05)
            shipper.step()
            return_stranded()
    print(f"served {served}, waited {[round(wait, 1) for wait in waits]} s for what was stranded")
    assert answer.status_code == 402
    assert served == 100
    assert waits  # or nothing was ever stranded, and this proved nothing
    wait_until(lambda: (shipper.step(), spent_nano(acme))[1] == 100 * PRICE_NANO, "the last event")
    for level, scope_id in (("organisation", acme.id), ("project", acme.project_id)):
        wait_until(
            lambda level=level, scope_id=scope_id: (
                (
                    shipper.step(),
                    return_stranded(),
                    granted_nano(acme, scope_id) - pool_nano(redis_url, acme, level, scope_id),
                )[2]
                == 100 * PRICE_NANO
            ),
            "granted being what was spent and what can be",
        )


@pytest.fixture
async def slow_engine():
    """A hundred words, one every 20 ms."""
    made = Engine()

    async def behave(peer):
        await peer.send(HEAD, *[event()] * 100, event("", 0, "stop"), END, pause_s=0.02)

    made.behave = behave
    async with scripted(made.script) as server:
        yield server


async def test_what_a_killed_gateway_held_comes_back_to_every_budget(
    start_gateway, slow_engine, acme, redis_url
):
    """Killed with streams open in the middle: each is billed for its last checkpoint, no more."""
    scopes = {"key": acme.key_id, "project": acme.project_id, "organisation": acme.id}
    for level, scope_id in scopes.items():
        await asyncio.to_thread(set_budget, acme, level, scope_id, 10_000_000)
    gateway = start_gateway(slow_engine.url)
    words = 0
    enough = asyncio.Event()

    async def stream(client):
        nonlocal words
        body = CHAT[1] | {"stream": True, "max_tokens": 200}
        with contextlib.suppress(httpx.TransportError):
            async with client.stream("POST", CHAT[0], json=body) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    words += '"word "' in line
                    if words >= 200:
                        enough.set()

    headers = {"Authorization": f"Bearer {acme.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as client:
        streams = [asyncio.create_task(stream(client)) for _ in range(12)]
        await enough.wait()
        assert len(reservations(redis_url, acme)) == 12
        gateway.process.kill()
        await asyncio.gather(*streams)
    assert gateway.process.wait(30) == -signal.SIGKILL
    assert len(reservations(redis_url, acme)) == 12
    assert held_nano(redis_url, acme) > 0
    killed_at = time.monotonic()

    def recovered() -> None:
        shipper = ship.Shipper(gateway.journal, send=ingest_segments)
        wait_until(
            lambda: (shipper.step(), not reservations(redis_url, acme))[1],
            "no reservation being open",
            60,
        )
        print(f"no open reservation {time.monotonic() - killed_at:.1f} s after the kill")
        wait_until(
            lambda: (shipper.step(), not list(gateway.journal.glob("*/*")))[1], "an empty journal"
        )
        credit_uncredited()

    await asyncio.to_thread(in_a_thread, recovered)
    assert held_nano(redis_url, acme) == 0
    spent = spent_nano(acme)
    assert spent > 0
    for level, scope_id in scopes.items():
        assert granted_nano(acme, scope_id) - pool_nano(redis_url, acme, level, scope_id) == spent
