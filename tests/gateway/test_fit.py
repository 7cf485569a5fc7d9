"""Who names no max_tokens is not starved: a budget for a hundred such requests serves a hundred."""

import asyncio
import random

import httpx2 as httpx
import pytest

from tests.gateway.test_budget_holds import granted

pytestmark = pytest.mark.django_db(transaction=True)

REQUESTS = 100
ASKED = 150  # the rest of them find the budget spent
SERVED_MIN = 95


def asking(seed: int) -> dict[str, object]:
    """A chat that names no bound; its seed decides its answer and so its cost."""
    said = ["Tell me of budgets.", "What is a meter?", "How are tokens counted, and who pays?"]
    message = {"role": "user", "content": said[seed % len(said)]}
    return {"model": "tiny-lm", "messages": [message], "seed": seed, "stop": ["."]}


async def ask(gateway, secret, seeds, at_once) -> list[httpx.Response]:
    """The answers, in the order they were asked for; `at_once` are under way at any time."""
    turns = asyncio.Semaphore(at_once)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:

        async def one(seed):
            async with turns:
                return await client.post("/v1/chat/completions", json=asking(seed))

        return await asyncio.gather(*(one(seed) for seed in seeds))


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_budget_for_a_hundred_open_requests_serves_them(gateway, selling, onboard, at_once):
    first = random.randrange(2**16)
    print(f"seed {first}")
    seeds = range(first, first + ASKED)
    rich = onboard("rich")
    free = asyncio.run(ask(gateway, rich.secret, seeds[:REQUESTS], at_once))
    assert {answer.status_code for answer in free} == {200}
    whole = gateway.settles()
    budget_nano = sum(event.cost_nano for event in whole)
    held_nano = sum(event.reserved_nano for event in whole)
    assert held_nano > 3 * budget_nano, "held in full, this budget would serve a third of them"

    tenant = onboard("acme", monthly_budget_nano=budget_nano)
    answers = asyncio.run(ask(gateway, tenant.secret, seeds, at_once))
    assert {answer.status_code for answer in answers} <= {200, 402}
    served = [answer for answer in answers if answer.status_code == 200]
    settled = [event for event in gateway.settles() if event.tenant_id == tenant.id]
    cost_nano = sum(event.cost_nano for event in settled)
    cut = [answer for answer in served if "x-meterplane-output-tokens-max" in answer.headers]
    print(f"served {len(served)}, {len(cut)} of them bounded by what was left;"
          f" {cost_nano} of {budget_nano} nano spent")  # fmt: skip
    assert len(served) >= SERVED_MIN
    assert cost_nano <= budget_nano
    assert granted(tenant.id) <= budget_nano
    for answer in cut:
        told, body = int(answer.headers["x-meterplane-output-tokens-max"]), answer.json()
        assert body["usage"]["completion_tokens"] <= told
        if body["usage"]["completion_tokens"] == told:
            assert body["choices"][0]["finish_reason"] == "length"
