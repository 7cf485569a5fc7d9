"""Who names no max_tokens is not starved: a budget for a hundred such requests serves a hundred."""

import asyncio
import contextlib
import random

import httpx2 as httpx
import pytest

from meterplane.contracts.reservations import Granted
from meterplane.gateway.budgets import Budgets
from meterplane.kernel.errors import CallerError
from tests.gateway.admission_bench import POOL_NANO, Request, open_bench
from tests.gateway.test_budget_holds import granted

REQUESTS = 100
SERVED_MIN = 95
TRIES_MAX = 120  # as a client does that is told to come back


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
                for _ in range(TRIES_MAX):
                    answer = await client.post("/v1/chat/completions", json=asking(seed))
                    if answer.status_code != 429:
                        break
                    assert answer.json()["error"]["code"] == "budget_reserved"
                    await asyncio.sleep(int(answer.headers["retry-after"]) / 10)
                return answer

        return await asyncio.gather(*(one(seed) for seed in seeds))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "at_once",
    [8, pytest.param(1, marks=pytest.mark.long), pytest.param(32, marks=pytest.mark.long)],
)
def test_a_budget_for_a_hundred_open_requests_serves_them(gateway, selling, onboard, at_once):
    first = random.randrange(2**16)
    print(f"seed {first}")
    seeds = range(first, first + REQUESTS)
    rich = onboard("rich")
    free = asyncio.run(ask(gateway, rich.secret, seeds, 32))
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


class Spent(Budgets):
    """A limit whose every block was granted: what the pool holds is all there is."""

    async def take(self, policy, budget, needed_nano, epoch, grant_id, revision):
        return Granted(0, budget.amount, 1, False)


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        opened = await open_bench(redis_url, stack)
        opened.admitter._budgets = Spent(None)
        yield opened


async def ends_soon(bench, admission, used_nano):
    await asyncio.sleep(0.1)
    await bench.settle(admission, used_nano)


async def test_what_others_hold_is_waited_for_before_an_answer_is_shortened(bench):
    other = await bench.admit(POOL_NANO - 100)
    ends = asyncio.create_task(ends_soon(bench, other, 50))
    admission = await bench.admit(request=Request(1000, least_nano=10))
    await ends
    assert admission.reserved_nano == 1000
    assert bench.admitter.fitted == 0


async def test_where_others_go_on_an_answer_is_shortened(bench):
    await bench.admit(POOL_NANO - 100)
    admission = await bench.admit(request=Request(1000, least_nano=10))
    assert admission.reserved_nano == 100
    assert await bench.pools() == ({0}, {POOL_NANO})


async def test_what_would_fit_shortened_once_others_end_is_not_refused_for_good(bench):
    """In full it never fits: 402 would be a lie while what is held may come back."""
    other = await bench.admit(POOL_NANO - 5)
    ends = asyncio.create_task(ends_soon(bench, other, POOL_NANO // 2))
    admission = await bench.admit(request=Request(2 * POOL_NANO, least_nano=10))
    await ends
    assert admission.reserved_nano == POOL_NANO // 2
    assert bench.admitter.refused_budget == 0


@pytest.mark.parametrize(
    ("held_nano", "least_nano", "status", "code"),
    [
        (POOL_NANO - 5, 10, 429, "budget_reserved"),
        (POOL_NANO - 5, None, 402, "insufficient_quota"),  # named a bound that never fits
        (0, POOL_NANO + 1, 402, "insufficient_quota"),
    ],
)
async def test_who_may_come_back_is_told_from_who_may_not(
    bench, held_nano, least_nano, status, code
):
    await bench.admit(held_nano)
    with pytest.raises(CallerError) as refused:
        await bench.admit(request=Request(2 * POOL_NANO, least_nano=least_nano))
    assert (refused.value.status, refused.value.code) == (status, code)
    assert await bench.pools() == ({POOL_NANO - held_nano}, {held_nano})
