"""A budget for N serves N, however many ask at once, and never a nano more."""

import asyncio
import random

import httpx2 as httpx
import psycopg
import pytest

from tests import environment
from tests.gateway.deployments import limit_rate

pytestmark = pytest.mark.django_db(transaction=True)

INFER = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}
REQUEST_NANO = 10_000  # the price of one identity request


async def ask_at_once(gateway, secret, count, path="/v2/models/identity/infer", body=INFER):
    headers = {"Authorization": f"Bearer {secret}"}
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=60
    ) as client:
        answers = await asyncio.gather(*(client.post(path, json=body) for _ in range(count)))
    return [answer.status_code for answer in answers]


def granted(tenant_id):
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT granted_nano FROM budget_window WHERE tenant_id = %s", (tenant_id,)
        ).fetchone()
    return row[0] if row else 0


@pytest.mark.parametrize("budget_requests", [1, 7, 100])
def test_a_budget_for_n_serves_exactly_n(gateway, selling, onboard, budget_requests):
    limit_nano = budget_requests * REQUEST_NANO + 3  # not a multiple: the rest is never spent
    tenant = onboard("acme", monthly_budget_nano=limit_nano)
    statuses = asyncio.run(ask_at_once(gateway, tenant.secret, 150))
    assert statuses.count(200) == budget_requests
    assert statuses.count(402) == 150 - budget_requests
    settled = gateway.settles()
    assert sum(event.cost_nano for event in settled) == budget_requests * REQUEST_NANO
    assert granted(tenant.id) <= limit_nano


def test_what_a_request_did_not_use_is_given_back(gateway, selling, onboard):
    """Each chat reserves more than it costs: serial requests must reach the limit all the same."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    tenant = onboard("acme", monthly_budget_nano=60_000)
    body = {
        "model": "tiny-lm",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 40,
        "stop": ["."],
        "seed": seed,
    }
    with gateway.client(tenant.secret) as client:
        for _ in range(200):
            answer = client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                break
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    settled = gateway.settles()
    spent = sum(event.cost_nano for event in settled)
    worst = max(event.reserved_nano for event in settled)
    assert 60_000 - worst < spent <= 60_000


def test_a_burst_is_limited_and_told_when_to_come_back(gateway, selling, onboard):
    tenant = onboard("acme")
    limit_rate(tenant, 60, 5)
    statuses = asyncio.run(ask_at_once(gateway, tenant.secret, 30))
    assert 5 <= statuses.count(200) <= 7  # one more for each second the burst itself took
    assert set(statuses) == {200, 429}
    with gateway.client(tenant.secret) as client:
        refused = client.post("/v2/models/identity/infer", json=INFER)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
