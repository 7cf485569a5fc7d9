"""An organisation held to its credit is served what its live credit covers: all of it, no more."""

import asyncio
import time
from collections import Counter
from datetime import timedelta

import httpx2 as httpx
import psycopg
import pytest
import redis
from django.db import connections

from billing.credits.refund import refund_credit
from billing.pricing.book import ModelPrices
from meterplane.contracts import admission_keys
from meterplane.contracts.policy import Limit
from meterplane.kernel import clock
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.hold_to_credit import hold_to_credit
from tests import environment
from tests.billing.credits.rig import give
from tests.billing.world import publish_prices
from tests.gateway.test_budgets import INFER, ask_at_once, reservations

pytestmark = pytest.mark.django_db(transaction=True)

REQUESTS_A_CENT = 10
PRICE_NANO = 10_000_000 // REQUESTS_A_CENT


@pytest.fixture
def held(acme):
    """A tenant that is held to its credit, and has none yet. Ten requests cost it a cent."""
    publish_prices({"identity": ModelPrices(0, 0, PRICE_NANO * 1000)})
    recompile_everyone()
    assert hold_to_credit(acme.id)
    return acme


def grant(tenant, cents, key="", **terms):
    """In an async test too, whose connections nobody else closes."""
    try:
        return give(tenant, cents, key or f"grant {time.monotonic_ns()}", **terms)
    finally:
        connections.close_all()


def pool(redis_url, tenant):
    with redis.Redis.from_url(redis_url) as admission:
        limit = Limit(
            level="organisation", scope_id=tenant.id, kind="spend", window="credit", amount=0
        )
        found = admission.hgetall(admission_keys.limit(tenant.id, limit, "credit-1"))
    return {name.decode(): int(value) for name, value in found.items()}


def granted_nano(tenant):
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT granted_nano FROM budget_window"
            " WHERE tenant_id = %s AND \"window\" LIKE 'credit-%%'",
            (tenant.id,),
        ).fetchone()
    return row[0]


async def ask_until_served(client):
    for _ in range(500):
        answer = await client.post(INFER[0], json=INFER[1])
        if answer.status_code != 402:
            break
        await asyncio.sleep(0.02)
    return answer


def ask(client):
    return client.post(INFER[0], json=INFER[1])


async def test_a_hundred_at_once_on_credit_for_thirty_are_exactly_thirty(
    start_gateway, triton, held, redis_url
):
    """Through two gateways, which share nothing but PostgreSQL and Redis."""
    gateways = [start_gateway(triton.http_url) for _ in range(2)]
    await asyncio.to_thread(grant, held, 3)
    answers = await ask_at_once(gateways, held.secret, INFER, 100)
    told = Counter(answer.status_code for answer in answers)
    assert (told[200], told[402] + told[429]) == (30, 70)
    settles = [settle for gateway in gateways for settle in gateway.settles()]
    assert sum(settle.cost_nano for settle in settles) == 30 * PRICE_NANO
    assert granted_nano(held) - pool(redis_url, held)["left"] == 30 * PRICE_NANO
    assert reservations(redis_url, held) == []


def test_without_credit_nothing_is_served_and_the_refusal_says_what_to_do(gateway, held):
    with gateway.client(held.secret) as client:
        refused = ask(client)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (402, "false")
        assert "retry-after" not in refused.headers
        assert refused.json()["error"] == (
            "The prepaid credit of this organisation does not cover this request: 0 USD of it is"
            " left. Have credit added (the Billing page of the portal shows what you have), or ask"
            " for fewer tokens."
        )


async def test_a_grant_admits_whoever_is_refused_within_a_second(gateway, held):
    waits = []

    async def poll(client):
        answer = await ask_until_served(client)
        assert answer.status_code == 200
        waits.append(time.monotonic())

    headers = {"Authorization": f"Bearer {held.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as client:
        polling = [asyncio.create_task(poll(client)) for _ in range(8)]
        await asyncio.sleep(0.3)
        assert not waits
        await asyncio.to_thread(grant, held, 1)
        granted_at = time.monotonic()
        await asyncio.gather(*polling)
    print(f"admitted {max(waits) - granted_at:.3f} s after the grant")
    assert max(waits) - granted_at < 1


def test_what_expires_is_served_to_nobody_from_its_instant_on_though_it_was_lent(
    gateway, held, redis_url
):
    expires_at = clock.now() + timedelta(seconds=2)
    grant(held, 500, expires_at=expires_at)  # more than anybody can spend by then
    served_after = 0
    with gateway.client(held.secret) as client:
        assert ask(client).status_code == 200
        assert pool(redis_url, held)["left"] > PRICE_NANO  # lent, and not spent
        while True:
            asked_at = clock.now()
            answer = ask(client)
            if answer.status_code == 402:
                break
            if answer.status_code == 429:  # what the last one held is not given back yet
                continue
            assert answer.status_code == 200
            served_after += asked_at >= expires_at
        assert clock.now() >= expires_at
        assert served_after == 0
        assert pool(redis_url, held)["left"] > PRICE_NANO
        grant(held, 1)
        # What was spent of the credit that is gone comes first.
        assert len(gateway.settles()) > REQUESTS_A_CENT
        assert ask(client).status_code == 402


def test_what_is_refunded_is_served_to_nobody_though_it_was_lent(gateway, held, redis_url):
    refunded = grant(held, 40, kind="purchased")
    grant(held, 1)
    with gateway.client(held.secret) as client:
        assert [ask(client).status_code for _ in range(3)] == [200, 200, 200]
        refund_credit(tenant_id=held.id, grant_id=refunded)
        assert pool(redis_url, held)["left"] > 10 * PRICE_NANO
        statuses = [ask(client).status_code for _ in range(9)]
        assert statuses == [200] * 7 + [402] * 2
        grant(held, 1)
        assert [ask(client).status_code for _ in range(11)] == [200] * 10 + [402]
    assert sum(settle.cost_nano for settle in gateway.settles()) == 20 * PRICE_NANO
