"""Admission against a real Redis: what is held, what is given back, and what a stall leaves."""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
import redis.asyncio as redis
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import Budget, KeyPolicy, RateLimit
from meterplane.gateway.admission_commands import (
    ADMIT,
    SCRIPTS,
    SETTLE,
    PreparedCommands,
    Tokens,
    reserved_as,
)
from meterplane.gateway.admit import Admitter, budget_window
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.limits import RESERVATION_TTL_S
from tests.conftest import wait_until

DIGEST = b"d" * 32
POOL_NANO = 1_000_000
SCOPES = ("key", "project", "organisation")


def make_policy(random_=random, scopes=SCOPES, **changed):
    def some_id():
        return UUID(int=random_.getrandbits(128))

    values = {
        "version": random_.randrange(1, 10**6),
        "key_id": some_id(),
        "tenant_id": some_id(),
        "project_id": some_id(),
        "status": "active",
        "status_reason": "",
        "expires_at_ms": None,
        "currency": "eur",
        "price_version_id": some_id(),
        "models": {},
        "rate": None,
        "budgets": [
            Budget(scope=scope, scope_id=some_id(), window="month", limit_nano=POOL_NANO)
            for scope in scopes
        ],
    }
    return KeyPolicy(**values | changed)


class AfreshPolicies(Policies):
    """PostgreSQL's part: what it has now for the one key."""

    current = None

    async def read_afresh(self, digest):
        assert digest == DIGEST
        return self.current


class Bench:
    """An admitter, its Redis, and a key whose pools are filled."""

    def __init__(self, admitter, calls, insist, policies, server, policy):
        self.admitter, self.calls, self.insist = admitter, calls, insist
        self.policies, self.server, self.policy = policies, server, policy

    async def admit(self, cost_nano, request_id=None, policy=None):
        return await self.admitter.admit(
            request_id or uuid7(), DIGEST, policy or self.policy, lambda _: cost_nano
        )

    async def fill(self, policy):
        await self.server.set(names.version(policy.tenant_id, policy.key_id), policy.version)
        for pool in PreparedCommands(policy, budget_window()).pools:
            await self.server.set(pool, POOL_NANO)

    async def pools(self):
        pools = PreparedCommands(self.policy, budget_window()).pools
        return {int(held) for held in await self.server.mget(pools)}

    async def reservations(self):
        return await self.server.keys("*reservation*")

    async def everything_owed_is_paid(self):
        await asyncio.to_thread(wait_until, lambda: not self.insist.owed, "paying")


@pytest.fixture
async def bench(redis_url):
    pool = AsyncConnectionPool("", open=False)
    calls = LuaCalls(redis_url, SCRIPTS)
    calls.start()
    insist = Insist(calls)
    insist.start()
    policies = AfreshPolicies(pool)
    async with redis.Redis.from_url(redis_url) as server:
        admitter = Admitter(calls, insist, policies, Budgets(pool))
        made = Bench(admitter, calls, insist, policies, server, make_policy())
        await made.fill(made.policy)
        yield made
    await insist.close()
    await calls.close()


async def stall(bench):
    pid = (await bench.server.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_prepared_calls_are_what_the_contract_names():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_, tokens = random.Random(seed), Tokens()
    for _ in range(200):
        rate = random_.choice([None, RateLimit(requests_per_minute=600, burst=7)])
        scopes = SCOPES[: random_.randrange(4)]
        policy = make_policy(random_, scopes=scopes, rate=rate)
        prepared = PreparedCommands(policy, "2026-11")
        request_id, token = UUID(int=random_.getrandbits(128)), tokens.mint()
        cost_nano, fresh = random_.randrange(10 ** random_.randrange(1, 16)), random_.random() < 0.5
        tenant, key = policy.tenant_id, policy.key_id
        reservation = f"{names.reservation(tenant, request_id)}:{token.decode()}"
        pools = [names.pool(tenant, b.scope, b.scope_id, "2026-11") for b in policy.budgets]
        assert prepared.pools == pools
        keys = [names.version(tenant, key), names.rate(tenant, key), names.epoch(tenant)]
        limits = ["100000", "7"] if rate else ["0", "0"]
        arguments = [str(policy.version), "1" if fresh else "0", *limits]
        arguments += [str(cost_nano), str(RESERVATION_TTL_S), token.decode()]
        ending = reserved_as(request_id, token)
        assert prepared.admit(ending, cost_nano, token, fresh) == ADMIT.command(
            [*keys, reservation, *pools], arguments
        )
        assert prepared.settle(ending, cost_nano) == SETTLE.command(
            [reservation, *pools], [str(cost_nano)]
        )


def test_no_two_tokens_are_the_same():
    workers = [Tokens() for _ in range(10)]
    minted = [each.mint() for each in workers for _ in range(1000)]
    assert len(set(minted)) == 10_000
    assert {len(token) for token in minted} == {20}


async def test_a_reservation_is_held_in_every_pool_and_settled_once(bench):
    admission = await bench.admit(1000)
    assert admission.reserved_nano == 1000
    assert await bench.pools() == {POOL_NANO - 1000}
    await bench.admitter.settle(admission, 300)
    await bench.admitter.settle(admission, 0)
    await bench.admitter.release(admission, 0)
    assert await bench.pools() == {POOL_NANO - 300}
    assert await bench.reservations() == []
    assert (bench.admitter.admitted, bench.insist.owed_ever) == (1, 0)


async def test_admissions_and_releases_of_many_share_trips_and_add_up(bench):
    async def one(number):
        admission = await bench.admit(1000)
        bench.admitter.release(admission, number)

    await asyncio.gather(*(one(number) for number in range(200)))
    last = await bench.admit(0)
    await bench.admitter.settle(last, 0)
    assert await bench.pools() == {POOL_NANO - sum(range(200))}
    assert bench.calls.calls == 402
    assert bench.calls.trips <= 6


async def test_a_key_without_budgets_reserves_nothing(bench):
    policy = make_policy(scopes=())
    await bench.fill(policy)
    admission = await bench.admit(1000, policy=policy)
    assert admission.pools == []
    assert bench.admitter.release(admission, 1000) is None
    assert await bench.reservations() == []


async def test_nothing_is_admitted_under_a_policy_that_is_not_current(bench):
    newer = msgspec.structs.replace(
        bench.policy,
        version=bench.policy.version + 1,
        rate=RateLimit(requests_per_minute=60, burst=5),
    )
    await bench.server.set(names.version(newer.tenant_id, newer.key_id), newer.version)
    bench.policies.current = newer
    admission = await bench.admit(10)
    assert admission.policy is newer
    assert (admission.remaining_requests, bench.admitter.stale) == (4, 1)
    bench.policies.current = None
    await bench.server.set(names.version(newer.tenant_id, newer.key_id), newer.version + 1)
    with pytest.raises(CallerError) as revoked:
        await bench.admit(10, policy=newer)
    assert (revoked.value.status, bench.admitter.refused_key) == (401, 1)


async def test_what_the_cost_refuses_asks_redis_nothing(bench):
    def refuse(_):
        raise CallerError("model_not_found", "No such model.", status=404)

    with pytest.raises(CallerError):
        await bench.admitter.admit(uuid7(), DIGEST, bench.policy, refuse)
    assert bench.calls.calls == 0


async def test_a_rate_is_told_and_counted(bench):
    policy = make_policy(rate=RateLimit(requests_per_minute=6, burst=2))
    await bench.fill(policy)
    assert [(await bench.admit(1, policy=policy)).remaining_requests for _ in range(2)] == [1, 0]
    with pytest.raises(CallerError) as limited:
        await bench.admit(1, policy=policy)
    assert limited.value.retry_after_s == 10
    assert bench.admitter.refused_rate == 1


async def test_a_new_month_has_pools_of_its_own(bench):
    with clock.frozen(datetime(2026, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC)):
        await bench.fill(bench.policy)
        november = await bench.admit(1000)
        assert all(pool.endswith(":2026-11") for pool in november.pools)
    with clock.frozen(datetime(2026, 12, 1, tzinfo=UTC)):
        await bench.fill(bench.policy)
        december = await bench.admit(1000)
        assert all(pool.endswith(":2026-12") for pool in december.pools)
    await bench.admitter.settle(november, 0)  # to where it was taken from
    held = await bench.server.mget([*november.pools, *december.pools])
    assert [int(each) for each in held] == [POOL_NANO] * 3 + [POOL_NANO - 1000] * 3


async def test_a_stall_withholds_nothing_however_much_stood_in_the_socket(bench):
    """100 calls are more than Redis reads of one connection at once."""
    await bench.admit(0)
    pid = await stall(bench)
    try:
        answers = await asyncio.gather(
            *(bench.admit(1000) for _ in range(100)), return_exceptions=True
        )
        assert all(isinstance(answer, LuaUnavailable) for answer in answers)
        await asyncio.sleep(0.6)  # it is tried, in vain
    finally:
        os.kill(pid, signal.SIGCONT)
    assert bench.admitter.unavailable == 100
    await bench.everything_owed_is_paid()
    assert await bench.pools() == {POOL_NANO}


async def test_a_release_that_redis_did_not_answer_is_made_later(bench):
    admissions = [await bench.admit(1000) for _ in range(3)]
    pid = await stall(bench)
    try:
        for admission in admissions:
            assert await bench.admitter.release(admission, 400) is None
        assert bench.insist.owed == 3
    finally:
        os.kill(pid, signal.SIGCONT)
    await bench.everything_owed_is_paid()
    assert await bench.pools() == {POOL_NANO - 1200}


async def test_a_request_that_comes_again_is_not_released_by_its_first_try(bench):
    """A line of a batch is tried again under its id after a 503."""
    request_id = uuid7()
    await bench.admit(0)
    pid = await stall(bench)
    try:
        with pytest.raises(LuaUnavailable):
            await bench.admit(1000, request_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    again = await bench.admit(1000, request_id)
    await bench.everything_owed_is_paid()
    assert await bench.pools() == {POOL_NANO - 1000}
    await bench.admitter.settle(again, 700)
    assert await bench.pools() == {POOL_NANO - 700}


async def test_whoever_is_cancelled_gives_back(bench):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    tasks = [asyncio.create_task(bench.admit(1000)) for _ in range(100)]
    kept = 0
    for task in tasks:
        if random_.random() < 0.3:
            await asyncio.sleep(0)
        if random_.random() < 0.5:
            task.cancel()
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        kept += not isinstance(answer, asyncio.CancelledError)
    await bench.everything_owed_is_paid()
    assert await bench.pools() == {POOL_NANO - 1000 * kept}


async def test_each_redis_that_forgot_everything_opens_an_epoch_of_its_own(bench):
    seen = set()
    for _ in range(20):
        await bench.server.flushdb()
        await bench.fill(bench.policy)
        await bench.admit(1)
        seen.add(await bench.server.get(names.epoch(bench.policy.tenant_id)))
    assert len(seen) == 20
