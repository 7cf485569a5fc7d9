"""Pools of budgets against a real Redis: what binds, what is credited, what a refusal says.

PostgreSQL's part is played in memory: a limit for each level, granted in blocks.
"""

import asyncio
import contextlib
from collections import Counter
from uuid import UUID

import msgspec
import pytest

from meterplane.contracts import admission_keys as names
from meterplane.contracts.reservations import Granted
from meterplane.gateway import admission_commands
from meterplane.gateway.admit import Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import InvariantBroken
from tests.gateway.admission_bench import (
    DIGEST,
    LEVELS,
    DaysKnown,
    Request,
    limit,
    make_policy,
    open_bench,
)
from tests.gateway.admission_bench import prepared as prepare


class Treasury(Budgets):
    """Grants `block_nano` or what is needed, up to the limit; says the rest is `stranded`."""

    def __init__(self, block_nano=1):
        super().__init__(None)
        self.block_nano, self.granted, self.stranded = block_nano, Counter(), False
        self.refused, self.epoch_nano = 0, 0
        self.under_way = 0  # how often one is asked for before another worker's block is there

    async def take(self, policy, budget, needed_nano, epoch, grant_id, revision):
        if self.under_way:
            self.under_way -= 1
            return Granted(0, self.granted[budget.key], 0, under_way=True)
        rest = budget.amount - self.granted[budget.key]
        block = min(max(self.block_nano, needed_nano), rest) if needed_nano <= rest else 0
        self.granted[budget.key] += block
        self.refused += not block
        granted = self.granted[budget.key]
        stranded = self.stranded and not block
        return Granted(block, granted, granted, stranded, 0 if block else self.epoch_nano)


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        bench = await open_bench(redis_url, stack)
        bench.treasury = Treasury()
        bench.admitter = Admitter(
            bench.calls, bench.insist, bench.policies, bench.treasury, DaysKnown()
        )
        yield bench


async def spending(bench, **amounts):
    """A policy with a month's budget at each of these levels."""
    limits = [
        limit("spend", "month", amount, level=level, scope_id=UUID(int=n))
        for n, (level, amount) in enumerate(amounts.items())
    ]
    policy = make_policy(limits=limits)
    await bench.know(policy)
    return policy


async def told(bench, policy, count, nano):
    answers = await asyncio.gather(
        *(bench.admit(nano, policy=policy) for _ in range(count)), return_exceptions=True
    )
    kinds = Counter(a.code if isinstance(a, Exception) else "ok" for a in answers)
    return kinds, [answer for answer in answers if not isinstance(answer, Exception)]


@pytest.mark.parametrize("smallest", LEVELS)
async def test_the_smallest_of_three_budgets_binds_exactly(bench, smallest):
    policy = await spending(bench, **dict.fromkeys(LEVELS, 1000) | {smallest: 205})
    kinds, admitted = await told(bench, policy, 50, 10)
    assert kinds["ok"] == 20
    for admission in admitted:
        await bench.settle(admission, 10)
    assert (await told(bench, policy, 3, 10))[0] == {"insufficient_quota": 3}
    assert (await told(bench, policy, 3, 5))[0]["ok"] == 1


async def test_who_is_refused_holds_nothing_in_the_pools_that_had_enough(bench):
    policy = await spending(bench, key=1000, project=1000, organisation=10)
    for applied in prepare(policy).limits[:2]:
        await bench.server.hset(applied.key, mapping={"left": 1000, "credited": 1000})
    assert (await told(bench, policy, 5, 11))[0] == {"insufficient_quota": 5}
    assert await bench.pools(policy) == ({1000, 0}, {0})
    assert await bench.reservations() == []


async def test_a_budget_that_refuses_is_counted_and_one_that_is_short_for_a_moment_is_not(bench):
    """A pool is short before each of its blocks: nobody is to be told of that."""
    policy = await spending(bench, key=1000, organisation=205)
    kinds, _ = await told(bench, policy, 20, 10)
    assert kinds == {"ok": 20}
    assert await bench.hits(policy) == {}
    for _ in range(3):
        with pytest.raises(CallerError, match="budget"):
            await bench.admit(100_000, policy=policy)
    (key,) = [each.key for each in prepare(policy).limits if each.limit.level == "key"]
    assert await bench.hits(policy) == {key: 3}
    assert 0 < await bench.server.ttl(names.hits(policy.tenant_id)) <= 86_400


async def test_what_others_hold_is_waited_for_and_then_told_as_held(bench):
    policy = await spending(bench, organisation=100)
    first = await bench.admit(80, policy=policy)
    waiting = asyncio.create_task(bench.admit(50, policy=policy))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await bench.settle(first, 20)
    assert (await waiting).reserved_nano == 50
    kinds, _ = await told(bench, policy, 1, 60)
    assert kinds == {"budget_reserved": 1}, "80 are free once what is held comes back unused"
    assert (await told(bench, policy, 1, 81))[0] == {"insufficient_quota": 1}


async def test_a_block_on_its_way_to_the_pool_is_waited_for_and_not_told_as_spent(bench):
    """Another worker has taken the last block, and not credited it yet."""
    policy = await spending(bench, organisation=100)
    epoch = (await bench.admit(0, policy=policy)).epoch
    bench.treasury.granted[prepare(policy).limits[0].key] = bench.treasury.epoch_nano = 100
    assert (await told(bench, policy, 1, 60))[0] == {"budget_reserved": 1}
    assert (await told(bench, policy, 1, 101))[0] == {"insufficient_quota": 1}
    waiting = asyncio.create_task(bench.admit(60, policy=policy))
    await asyncio.sleep(0.1)
    await credit(bench, policy, epoch, uuid7(), 100, 100, 1)
    assert (await waiting).reserved_nano == 60
    await bench.settle(await waiting, 60)
    assert (await told(bench, policy, 1, 60))[0] == {"insufficient_quota": 1}


async def test_no_block_is_taken_while_another_workers_is_under_way(bench):
    policy = await spending(bench, organisation=100)
    epoch = (await bench.admit(0, policy=policy)).epoch
    bench.treasury.under_way = 1000
    waiting = asyncio.create_task(bench.admit(60, policy=policy))
    await asyncio.sleep(0.05)
    await credit(bench, policy, epoch, uuid7(), 60, 60, 1)
    assert (await waiting).reserved_nano == 60
    assert not bench.treasury.granted
    bench.treasury.under_way = 3
    assert (await bench.admit(40, policy=policy)).reserved_nano == 40
    assert bench.treasury.granted.total() == 40, "it was eaten up by others"


async def test_what_is_stranded_is_a_fault_of_ours_and_no_empty_budget(bench):
    policy = await spending(bench, organisation=100)
    bench.treasury.stranded = True
    with pytest.raises(WorldError) as refused:
        await bench.admit(101, policy=policy)
    assert refused.value.code == "budget_rebuilding"


async def test_a_request_without_a_bound_is_given_what_fits(bench):
    policy = await spending(bench, organisation=100)
    admission = await bench.admit(request=Request(500, least_nano=60), policy=policy)
    assert admission.reserved_nano == 100
    with pytest.raises(CallerError, match="does not cover"):
        await bench.admit(request=Request(500, least_nano=101), policy=policy)


async def credit(bench, policy, epoch, grant_id, nano, granted, revision):
    command = admission_commands.credit(
        policy, prepare(policy).limits[0], epoch, grant_id, Granted(nano, granted, revision)
    )
    return await bench.calls.ask(command)


async def pool(bench, policy):
    found = await bench.server.hgetall(prepare(policy).limits[0].key)
    return {name.decode(): int(value) for name, value in found.items()}


async def test_a_block_is_credited_once_in_its_epoch_and_in_no_other(bench):
    policy = await spending(bench, organisation=1000)
    epoch = (await bench.admit(0, policy=policy)).epoch
    grant_id = uuid7()
    answers = [await credit(bench, policy, epoch, grant_id, 100, 100, 1) for _ in range(3)]
    assert answers == [1, 0, 0]
    assert (await pool(bench, policy))["left"] == 100
    assert await credit(bench, policy, "another", uuid7(), 100, 200, 2) == -1
    await bench.server.flushdb()
    await bench.know(policy)
    assert (await bench.admit(0, policy=policy)).epoch != epoch
    assert await credit(bench, policy, epoch, grant_id, 100, 100, 1) == -1
    assert "left" not in await pool(bench, policy)


async def test_news_that_are_older_change_nothing_that_is_told(bench):
    policy = await spending(bench, organisation=1000)
    epoch = (await bench.admit(0, policy=policy)).epoch
    await credit(bench, policy, epoch, uuid7(), 100, 300, 3)
    await credit(bench, policy, epoch, uuid7(), 50, 200, 2)
    told = {"left": 150, "credited": 150}
    assert await pool(bench, policy) == told | {"granted": 300, "revision": 3}
    await credit(bench, policy, epoch, uuid7(), 0, 250, 4)
    assert await pool(bench, policy) == told | {"granted": 250, "revision": 4}


async def test_a_policy_just_read_that_is_outdated_already_is_not_made_current(bench):
    policy = await spending(bench, organisation=1000)
    epoch = (await bench.admit(0, policy=policy)).epoch.encode()
    newer = msgspec.structs.replace(policy, version=policy.version + 1)
    prepared, tokens = prepare(policy), admission_commands.Tokens()

    async def read(in_epoch):
        token = tokens.mint()
        reservation = admission_commands.reserved_as(uuid7(), token)
        part = (reservation, admission_commands.spelt(admission_commands.NOTHING), token)
        return await bench.calls.ask_together(prepared.admits_read_in(in_epoch), part)

    assert (await read(epoch))[1][0] == b"ok"
    assert await read(b"the one before") == (epoch, [b"stale"])
    await bench.know(newer)
    assert await read(epoch) == (epoch, [b"stale"])
    known = await bench.server.get(names.version(policy.tenant_id, policy.key_id))
    assert int(known) == newer.version


async def test_who_asks_together_is_answered_for_itself(bench):
    policy = make_policy(limits=[limit("input_tokens", "day", 1000)])
    await bench.know(policy)
    asked = [1 if number % 4 else 2000 for number in range(20)]
    outcomes = await asyncio.gather(
        *(bench.admit(policy=policy, tokens_in=count) for count in asked), return_exceptions=True
    )
    assert bench.calls.trips <= 3
    refused = [isinstance(each, CallerError) for each in outcomes]
    assert refused == [count > 1000 for count in asked]


async def test_a_redis_that_is_away_admits_nobody(tmp_path):
    calls = LuaCalls(f"unix://{tmp_path / 'nobody.sock'}", admission_commands.SCRIPTS)
    calls.start()
    admitter = Admitter(calls, Insist(calls), None, Treasury(), None)
    policy = make_policy()
    for _ in range(3):
        with pytest.raises(LuaUnavailable):
            await admitter.admit(uuid7(), DIGEST, policy, Request(1))
    assert (admitter.admitted, admitter.unavailable) == (0, 3)
    await calls.close()


async def test_no_request_costs_more_than_it_reserved(bench):
    policy = await spending(bench, organisation=1000)
    admission = await bench.admit(10, policy=policy)
    with pytest.raises(InvariantBroken, match="no request costs more"):
        await bench.settle(admission, 11)
    await bench.settle(admission, 10)
    assert (await pool(bench, policy))["left"] == 0


async def test_the_largest_amount_a_pool_counts_is_exact_to_the_nano(bench):
    policy = await spending(bench, organisation=2**53 - 1)
    admission = await bench.admit(2**53 - 1, policy=policy)
    await bench.settle(admission, 2**53 - 3)
    assert (await pool(bench, policy))["left"] == 2
