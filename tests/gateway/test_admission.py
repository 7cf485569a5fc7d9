"""Admission against a real Redis: what is held, what is given back, and what a stall leaves."""

import asyncio
import contextlib
import os
import random
import signal
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from meterplane.contracts import admission_keys as names
from meterplane.gateway.admission_commands import (
    ADMIT,
    SETTLE,
    Tokens,
    Worst,
    reserved_as,
    spelt,
)
from meterplane.gateway.lua_calls import LuaUnavailable
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.limits import RESERVATION_TTL_S
from tests.gateway.admission_bench import (
    LEVELS,
    POOL_NANO,
    Request,
    budgets,
    limit,
    make_policy,
    open_bench,
    prepared,
)


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


def test_prepared_calls_are_what_the_contract_names():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_, tokens = random.Random(seed), Tokens()
    for _ in range(200):
        rate = random_.choice([[], [limit(amount=600, burst=7)]])
        spend = budgets(random_, LEVELS[: random_.randrange(4)])
        policy = make_policy(random_, limits=[*spend, *rate])  # spend comes last all the same
        made = prepared(policy)
        parts, reservations, worsts = [], [], []
        for _ in range(random_.randrange(1, 5)):
            request_id, token = UUID(int=random_.getrandbits(128)), tokens.mint()
            worst = Worst(*(random_.randrange(10 ** random_.randrange(1, 16)) for _ in range(3)))
            parts.append((reserved_as(request_id, token), spelt(worst), token))
            key = f"{names.reservation(policy.tenant_id, request_id)}:{token.decode()}"
            reservations.append(key)
            worsts.append(f"{worst.nano} {worst.tokens_in} {worst.tokens_out}")
        read_in = random_.choice([b"", b"%032x" % random_.getrandbits(128)])
        tenant, key = policy.tenant_id, policy.key_id
        month = f"{clock.now():%Y-%m}"
        limits = [names.limit(tenant, each, "minute") for each in rate]
        limits += [names.limit(tenant, each, month) for each in spend]
        rules = ["g" * len(rate) + "p" * len(spend), *(["r", "100000", "7"] if rate else [])]
        fixed = [names.version(tenant, key), names.epoch(tenant), names.hits(tenant)]
        arguments = [str(policy.version), read_in.decode(), parts[0][2].decode()]
        record = "\n" + "\n".join(" ".join(part) for part in (limits, rules))
        arguments += [str(RESERVATION_TTL_S if spend else 0), record, *rules]
        admits = made.admits_read_in(read_in) if read_in else made.admits
        assert admits.command(parts) == ADMIT.command(
            [*fixed, *limits, *reservations], [*arguments, *worsts]
        )
        settled = [part[:2] for part in parts]
        assert made.settles.command(settled) == SETTLE.command(
            [*limits, *reservations], [*rules, *worsts]
        )


def test_no_two_tokens_are_the_same():
    workers = [Tokens() for _ in range(10)]
    minted = [each.mint() for each in workers for _ in range(1000)]
    assert len(set(minted)) == 10_000
    assert {len(token) for token in minted} == {20}


async def test_a_reservation_is_held_in_every_pool_and_settled_once(bench):
    admission = await bench.admit(1000)
    assert admission.reserved_nano == 1000
    assert await bench.pools() == ({POOL_NANO - 1000}, {1000})
    await bench.settle(admission, 300)
    await bench.settle(admission, 0)
    await bench.settle(admission, 0)
    assert await bench.pools() == ({POOL_NANO - 300}, {0})
    assert await bench.reservations() == []
    assert (bench.admitter.admitted, bench.insist.owed_ever) == (1, 0)


async def test_admissions_and_releases_of_many_share_trips_and_add_up(bench):
    async def one(number):
        admission = await bench.admit(1000)
        bench.admitter.release(admission, Worst(number, 0, 0))

    await asyncio.gather(*(one(number) for number in range(200)))
    last = await bench.admit(0)
    await bench.settle(last)
    assert await bench.pools() == ({POOL_NANO - sum(range(200))}, {0})
    assert bench.calls.calls == 402
    assert bench.calls.trips <= 8


async def test_a_key_without_budgets_reserves_nothing(bench):
    policy = make_policy(limits=[])
    await bench.fill(policy)
    admission = await bench.admit(1000, policy=policy)
    assert admission.left == []
    assert bench.admitter.release(admission, Worst(1000, 0, 0)) is None
    assert await bench.reservations() == []


async def test_nothing_is_admitted_under_a_policy_that_is_not_current(bench):
    newer = msgspec.structs.replace(
        bench.policy,
        version=bench.policy.version + 1,
        limits=[limit(burst=5)],
    )
    await bench.server.set(names.version(newer.tenant_id, newer.key_id), newer.version)
    bench.policies.current = newer
    admission = await bench.admit(10)
    assert admission.policy is newer
    assert (admission.left, bench.admitter.stale) == ([4], 1)
    bench.policies.current = None
    await bench.server.set(names.version(newer.tenant_id, newer.key_id), newer.version + 1)
    with pytest.raises(CallerError) as revoked:
        await bench.admit(10, policy=newer)
    assert (revoked.value.status, bench.admitter.refused_key) == (401, 1)


async def test_what_was_read_before_redis_was_lost_is_read_again(bench):
    """Revoked after it was read, told to the Redis that is lost then, and asked for in the next."""
    policy, reads = bench.policy, []
    await bench.server.flushall()

    async def read_afresh(digest):
        reads.append(digest)
        if len(reads) > 1:
            return None  # it is revoked
        await bench.server.flushall()
        return policy

    bench.policies.read_afresh = read_afresh
    with pytest.raises(CallerError) as revoked:
        await bench.admit(10)
    assert (revoked.value.status, len(reads)) == (401, 2)
    assert await bench.server.get(names.version(policy.tenant_id, policy.key_id)) is None


async def test_a_policy_that_was_read_for_a_new_redis_is_current_there(bench):
    bench.policies.current = bench.policy
    await bench.server.delete(names.version(bench.policy.tenant_id, bench.policy.key_id))
    for _ in range(3):
        await bench.admit()
    assert bench.admitter.stale == 1


async def test_what_the_cost_refuses_asks_redis_nothing(bench):
    class Refused(Request):
        def worst(self, policy):
            raise CallerError("model_not_found", "No such model.", status=404)

    with pytest.raises(CallerError):
        await bench.admit(request=Refused())
    assert bench.calls.calls == 0


async def test_a_new_month_has_pools_of_its_own(bench):
    with clock.frozen(datetime(2026, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC)):
        await bench.fill(bench.policy)
        november = await bench.admit(1000)
    with clock.frozen(datetime(2026, 12, 1, tzinfo=UTC)):
        await bench.fill(bench.policy)
        december = await bench.admit(1000)
    pools = [each.key for month in (november, december) for each in month.prepared.limits]
    assert [":2026-11:" in pool for pool in pools] == [True] * 3 + [False] * 3
    await bench.settle(november)  # to where it was taken from
    left = [int(await bench.server.hget(pool, "left")) for pool in pools]
    assert left == [POOL_NANO] * 3 + [POOL_NANO - 1000] * 3


async def test_a_stall_withholds_nothing_however_much_stood_in_the_socket(bench):
    """100 calls are more than Redis reads of one connection at once."""
    await bench.admit(0)
    pid = await bench.stall()
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
    assert await bench.pools() == ({POOL_NANO}, {0})


async def test_a_release_that_redis_did_not_answer_is_made_later(bench):
    admissions = [await bench.admit(1000) for _ in range(3)]
    pid = await bench.stall()
    try:
        for admission in admissions:
            assert await bench.admitter.release(admission, Worst(400, 0, 0)) is None
        assert bench.insist.owed == 3
    finally:
        os.kill(pid, signal.SIGCONT)
    await bench.everything_owed_is_paid()
    assert await bench.pools() == ({POOL_NANO - 1200}, {0})


async def test_a_request_that_comes_again_is_not_released_by_its_first_try(bench):
    """A line of a batch is tried again under its id after a 503."""
    request_id = uuid7()
    await bench.admit(0)
    pid = await bench.stall()
    try:
        with pytest.raises(LuaUnavailable):
            await bench.admit(1000, request_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    again = await bench.admit(1000, request_id)
    await bench.everything_owed_is_paid()
    assert await bench.pools() == ({POOL_NANO - 1000}, {1000})
    await bench.settle(again, 700)
    assert await bench.pools() == ({POOL_NANO - 700}, {0})


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
    assert await bench.pools() == ({POOL_NANO - 1000 * kept}, {1000 * kept})


async def test_each_redis_that_forgot_everything_opens_an_epoch_of_its_own(bench):
    seen = set()
    for _ in range(20):
        await bench.server.flushdb()
        await bench.fill(bench.policy)
        await bench.admit(1)
        seen.add(await bench.server.get(names.epoch(bench.policy.tenant_id)))
    assert len(seen) == 20
