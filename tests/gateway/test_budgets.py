"""No budget is overspent and none is withheld, however many ask at once and whatever Redis does."""

import asyncio
import os
import signal
from collections import Counter

import httpx2 as httpx
import psycopg
import pytest
import redis
from django.db import connections

from meterplane.contracts import admission_keys
from meterplane.contracts.policy import Limit
from meterplane.kernel import clock
from tenants.limits import set_limit
from tests import environment
from tests.conftest import wait_until
from tests.gateway.deployments import limit_rate

pytestmark = pytest.mark.django_db(transaction=True)

PRICE_NANO = 10_000  # of one identity request, from the catalog
INFER = (
    "/v2/models/identity/infer",
    {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]},
)
CHAT = (
    "/v1/chat/completions",
    {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 30},
)


def set_budget(tenant, level, scope_id, limit_nano):
    """In an async test too, whose connections nobody else closes."""
    try:
        set_limit(
            tenant_id=tenant.id, level=level, scope_id=scope_id, kind="spend", window="month",
            amount=limit_nano,
        )  # fmt: skip
    finally:
        connections.close_all()


def granted_nano(tenant, scope_id):
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT granted_nano FROM budget_window WHERE tenant_id = %s AND scope_id = %s",
            (tenant.id, scope_id),
        ).fetchone()
    return row[0] if row else 0


def pool_nano(redis_url, tenant, scope, scope_id):
    with redis.Redis.from_url(redis_url) as admission:
        budget = Limit(level=scope, scope_id=scope_id, kind="spend", window="month", amount=0)
        key = admission_keys.limit(tenant.id, budget, f"{clock.now():%Y-%m}")
        return int(admission.hget(key, "left") or 0)


def reservations(redis_url, tenant):
    with redis.Redis.from_url(redis_url) as admission:
        return admission.keys(f"*{tenant.id}*reservation*")


def code_of(answer):
    return "" if answer.is_success else answer.json()["error"]["code"]


async def ask_at_once(gateways, secret, call, count):
    """The statuses of `count` requests sent together, spread over the gateways."""
    limits = httpx.Limits(max_connections=count)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(headers=headers, timeout=30, limits=limits) as client:
        return await asyncio.gather(
            *(
                client.post(gateways[i % len(gateways)].url + call[0], json=call[1])
                for i in range(count)
            )
        )


async def test_two_hundred_at_once_on_a_budget_for_sixty_are_exactly_sixty(
    start_gateway, triton, acme, redis_url
):
    """Through two gateways, which share nothing but PostgreSQL and Redis."""
    limit_nano = 60 * PRICE_NANO + PRICE_NANO // 2
    set_budget(acme, "organisation", acme.id, limit_nano)
    gateways = [start_gateway(triton.http_url) for _ in range(2)]
    answers = await ask_at_once(gateways, acme.secret, INFER, 200)
    told = Counter(answer.status_code for answer in answers)
    # What others hold might come back: whoever cannot wait for it is told to try again.
    assert (told[200], told[402] + told[429]) == (60, 140)
    settles = [settle for gateway in gateways for settle in gateway.settles()]
    assert sum(settle.cost_nano for settle in settles) == 60 * PRICE_NANO
    refused = next(answer for answer in answers if answer.status_code == 402)
    assert refused.headers["x-should-retry"] == "false"
    assert "budget of this organisation" in refused.json()["error"]
    granted = granted_nano(acme, acme.id)
    assert granted <= limit_nano
    assert granted - pool_nano(redis_url, acme, "organisation", acme.id) == 60 * PRICE_NANO
    assert reservations(redis_url, acme) == []


async def test_what_a_stream_did_not_use_is_there_for_the_next_request(gateway, acme, redis_url):
    """Reservations are worst cases; the books are exact once they are settled."""
    set_budget(acme, "organisation", acme.id, 400_000)
    answers = await ask_at_once([gateway], acme.secret, CHAT, 60)
    assert {(answer.status_code, code_of(answer)) for answer in answers} == {
        (200, ""),
        (402, "insufficient_quota"),
    }
    spent = sum(settle.cost_nano for settle in gateway.settles())
    pool = pool_nano(redis_url, acme, "organisation", acme.id)
    assert spent + pool == granted_nano(acme, acme.id) <= 400_000
    assert reservations(redis_url, acme) == []
    with gateway.client(acme.secret) as client:
        for _ in range(30):  # refused above because others held it; now one by one, to the end
            if client.post(CHAT[0], json=CHAT[1]).status_code == 402:
                break
    spent = sum(settle.cost_nano for settle in gateway.settles())
    worst = gateway.admits()[0].reserved_nano
    assert 0 <= 400_000 - spent < worst
    assert spent + pool_nano(redis_url, acme, "organisation", acme.id) == granted_nano(
        acme, acme.id
    )


@pytest.mark.parametrize("scope", ["key", "project", "organisation"])
def test_each_scope_holds_and_is_named(gateway, acme, redis_url, scope):
    scopes = {"key": acme.key_id, "project": acme.project_id, "organisation": acme.id}
    for other, other_id in scopes.items():
        set_budget(acme, other, other_id, 1_000 * PRICE_NANO)
    set_budget(acme, scope, scopes[scope], 2 * PRICE_NANO)
    with gateway.client(acme.secret) as client:
        statuses = [client.post(INFER[0], json=INFER[1]).status_code for _ in range(3)]
        assert statuses == [200, 200, 402]
        refused = client.post(CHAT[0], json=CHAT[1]).json()["error"]
        assert (refused["code"], refused["type"]) == ("insufficient_quota", "insufficient_quota")
        assert f"budget of this {scope}" in refused["message"]
        set_budget(acme, scope, scopes[scope], 3 * PRICE_NANO)  # a raised limit is there at once
        statuses = [client.post(INFER[0], json=INFER[1]).status_code for _ in range(2)]
        assert statuses == [200, 402]
    for name, scope_id in (("project", acme.project_id), ("organisation", acme.id)):
        pool = pool_nano(redis_url, acme, name, scope_id)
        assert granted_nano(acme, scope_id) - pool == 3 * PRICE_NANO


def test_an_exhausted_budget_does_not_ask_postgres_each_time(start_gateway, triton, acme):
    set_budget(acme, "organisation", acme.id, PRICE_NANO)
    gateway = start_gateway(triton.http_url)
    log = environment.HOME / "logs" / "postgres.log"
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("ALTER ROLE meterplane_gateway SET log_statement = 'all'")
    try:
        gateway = start_gateway(triton.http_url)
        with gateway.client(acme.secret) as client:
            assert client.post(INFER[0], json=INFER[1]).status_code == 200
            before = log.read_text(errors="replace").count("take_budget")
            for _ in range(20):
                assert client.post(INFER[0], json=INFER[1]).status_code == 402
        asked = log.read_text(errors="replace").count("take_budget") - before
        assert 1 <= asked <= 4  # once a second, and twenty requests take no four
    finally:
        with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
            admin.execute("ALTER ROLE meterplane_gateway RESET log_statement")


async def test_a_rate_lets_its_burst_through_and_says_when_to_come_back(gateway, acme):
    limit_rate(acme, 6, 3)
    connections.close_all()
    answers = await ask_at_once([gateway], acme.secret, CHAT, 12)
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 9}
    remaining = {a.headers["x-ratelimit-remaining-requests"] for a in answers if a.is_success}
    assert remaining == {"0", "1", "2"}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 8 <= int(refused.headers["retry-after"]) <= 10


async def test_a_redis_that_stalls_admits_nobody_and_withholds_nothing(gateway, acme, redis_url):
    set_budget(acme, "organisation", acme.id, 1_000 * PRICE_NANO)
    with redis.Redis.from_url(redis_url) as admission:
        pid = admission.info("server")["process_id"]
    warm = await ask_at_once([gateway], acme.secret, INFER, 10)
    assert {answer.status_code for answer in warm} == {200}
    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = await ask_at_once([gateway], acme.secret, INFER, 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {answer.status_code for answer in stalled} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in stalled)

    def balanced():
        pool = pool_nano(redis_url, acme, "organisation", acme.id)
        return granted_nano(acme, acme.id) - pool == 10 * PRICE_NANO

    # Redis executes what stood in its socket when it wakes: those reservations are released.
    await asyncio.to_thread(wait_until, balanced, "the reservations coming back")
    assert reservations(redis_url, acme) == []
    after = await ask_at_once([gateway], acme.secret, INFER, 10)
    assert {answer.status_code for answer in after} == {200}
    assert len(gateway.settles()) == len(gateway.admits()) == 20


async def test_a_redis_that_forgets_everything_overspends_nothing(gateway, acme, redis_url):
    limit_nano = 100 * PRICE_NANO
    set_budget(acme, "organisation", acme.id, limit_nano)
    served = 0
    for _ in range(8):
        answers = await ask_at_once([gateway], acme.secret, INFER, 25)
        served += sum(answer.status_code == 200 for answer in answers)
        with redis.Redis.from_url(redis_url) as admission:
            admission.flushall()
    assert 0 < served <= 100
    assert sum(settle.cost_nano for settle in gateway.settles()) == served * PRICE_NANO
    assert granted_nano(acme, acme.id) <= limit_nano
