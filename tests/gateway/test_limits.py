"""Every kind of limit at every level, against a real Redis: what passes, what is told, what counts.

An oracle that knows only calendars and sums decides what may pass; time is Redis' own.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from meterplane.gateway.limit_headers import limit_headers, refusal_headers
from meterplane.gateway.limit_refusals import LimitReached
from meterplane.kernel import clock
from tests.gateway.admission_bench import budgets, limit, make_policy, open_bench, prepared

MINUTE_US = 60_000_000


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


async def with_limits(bench, *limits, **changed):
    policy = make_policy(limits=list(limits), **changed)
    await bench.fill(policy)
    return policy


async def outcomes(bench, policy, count, **asked):
    """How many of `count` requests at once passed, and what the others were told."""
    answers = await asyncio.gather(
        *(bench.admit(policy=policy, **asked) for _ in range(count)), return_exceptions=True
    )
    told = Counter("ok" if not isinstance(a, Exception) else a.code for a in answers)
    return told, [answer for answer in answers if not isinstance(answer, Exception)]


@pytest.mark.parametrize("level", ["organisation", "project", "key", "key_model"])
@pytest.mark.parametrize(
    ("kind", "window", "asked"),
    [
        ("requests", "second", {}),
        ("requests", "minute", {}),
        ("requests", "day", {}),
        ("input_tokens", "minute", {"tokens_in": 10}),
        ("input_tokens", "day", {"tokens_in": 10}),
        ("output_tokens", "minute", {"tokens_out": 10}),
        ("output_tokens", "day", {"tokens_out": 10}),
        ("total_tokens", "minute", {"tokens_in": 4, "tokens_out": 6}),
        ("total_tokens", "day", {"tokens_in": 4, "tokens_out": 6}),
        ("concurrency", "at_once", {}),
    ],
)
async def test_each_kind_holds_exactly_at_each_level(bench, level, kind, window, asked):
    """Five at once on a limit for five, and not six; whoever else asks is not concerned."""
    amount = 5 * sum(asked.values()) or 5
    model = "m" if level == "key_model" else ""
    burst = {"second": amount}.get(window) if kind == "requests" else None
    held = limit(kind, window, amount, level=level, model=model, burst=burst)
    policy = await with_limits(bench, held)
    told, admitted = await outcomes(bench, policy, 5, **asked)
    assert told == {"ok": 5}
    if window == "second":  # its next place comes in 200 ms: asked within one call's time
        return
    told, _ = await outcomes(bench, policy, 7, **asked)
    code = "concurrency_limit_exceeded" if kind == "concurrency" else "rate_limit_exceeded"
    assert told == {code: 7}
    assert sorted(each.left[0] for each in admitted) == [
        amount - n * (amount // 5) for n in (5, 4, 3, 2, 1)
    ]
    other = await with_limits(bench, held)  # another organisation
    assert (await outcomes(bench, other, 1, **asked))[0] == {"ok": 1}
    if level == "key_model":
        assert (await outcomes(bench, policy, 9, model="other", **asked))[0] == {"ok": 9}
    (hit,) = (await bench.hits(policy)).items()
    assert hit == (prepared(policy).limits[0].key, 7)


async def test_nothing_is_counted_anywhere_unless_everything_passes(bench):
    """All or nothing, over four levels and every kind."""
    generous = [
        limit(kind, window, 1000, level=level, scope_id=UUID(int=7), model=model)
        for level, model in (("organisation", ""), ("project", ""), ("key_model", "m"))
        for kind, window in (
            ("requests", "minute"),
            ("output_tokens", "day"),
            ("concurrency", "at_once"),
        )
    ]
    last = limit("requests", "day", 3, level="key")
    spend = budgets(levels=("organisation",))
    policy = await with_limits(bench, *generous, last, *spend)
    told, admitted = await outcomes(bench, policy, 10, nano=5, tokens_out=7)
    assert told == {"ok": 3, "rate_limit_exceeded": 7}
    for admission in admitted:
        await bench.settle(admission, 2, 0, 4)
    probe = make_policy(limits=[*generous, *spend], tenant_id=policy.tenant_id)
    await bench.know(probe)
    seen = await bench.admit(policy=probe)
    left = {
        (each.limit.level, each.limit.kind): left
        for each, left in zip(seen.prepared.limits, seen.left, strict=True)
    }
    for level in ("organisation", "project", "key_model"):
        assert left[level, "requests"] in (996, 997)  # a place comes back every 60 ms
        assert left[level, "output_tokens"] == 1000 - 3 * 4
        assert left[level, "concurrency"] == 999
    assert await bench.pools(policy) == ({1_000_000 - 6}, {0})


async def test_tokens_that_were_not_used_are_there_again(bench):
    for window in ("minute", "day"):
        policy = await with_limits(bench, limit("total_tokens", window, 1000))
        for _ in range(8):  # 8 x 300 would be 2,400; used are 8 x 100
            admission = await bench.admit(policy=policy, tokens_in=100, tokens_out=200)
            await bench.settle(admission, 0, 60, 40)
        told, _ = await outcomes(bench, policy, 1, tokens_in=150, tokens_out=150)
        assert told == {"rate_limit_exceeded": 1}, window


async def test_a_request_that_never_fits_is_told_so_and_not_to_try_again(bench):
    policy = await with_limits(bench, limit("output_tokens", "minute", 100))
    with pytest.raises(LimitReached) as refused:
        await bench.admit(policy=policy, tokens_out=101)
    assert (refused.value.code, refused.value.status) == ("request_too_large", 429)
    assert refused.value.retry_after_s is None
    assert "100 output tokens per minute of this organisation" in refused.value.message
    none = await with_limits(bench, limit("requests", "minute", 0))
    with pytest.raises(LimitReached, match="allows nothing"):
        await bench.admit(policy=none)


async def test_a_rate_is_smooth_and_says_when_to_come_back(bench):
    policy = await with_limits(bench, limit("requests", "minute", 6, burst=2))
    assert [(await bench.admit(policy=policy)).left for _ in range(2)] == [[1], [0]]
    with pytest.raises(LimitReached) as limited:
        await bench.admit(policy=policy)
    assert limited.value.retry_after_s == 10
    assert "6 requests per minute of this organisation" in limited.value.message
    assert bench.admitter.refused_rate == 1


async def test_odd_rates_do_not_drift(bench):
    """1,000 places at once are 1,000, whatever fraction of a microsecond a place takes."""
    for amount in (7, 77, 777, 7_777):
        policy = await with_limits(bench, limit("requests", "minute", amount, burst=1000))
        began = time.monotonic()
        told, _ = await outcomes(bench, policy, 1000)
        assert told == {"ok": 1000}
        told, _ = await outcomes(bench, policy, 1)
        a_place_came_back = time.monotonic() - began >= 60 / amount
        assert told == {"rate_limit_exceeded": 1} or a_place_came_back


async def test_days_are_the_calendars(bench):
    """The whole amount again after midnight UTC, and not twice it around midnight."""
    policy = await with_limits(bench, limit("requests", "day", 3))
    with clock.frozen(datetime(2027, 2, 28, 23, 59, 59, 999_000, tzinfo=UTC)):
        told, _ = await outcomes(bench, policy, 5)
        assert told == {"ok": 3, "rate_limit_exceeded": 2}
        with pytest.raises(LimitReached) as refused:
            await bench.admit(policy=policy)
        assert refused.value.retry_after_s == 1
    with clock.frozen(datetime(2027, 3, 1, tzinfo=UTC)):
        told, _ = await outcomes(bench, policy, 5)
        assert told == {"ok": 3, "rate_limit_exceeded": 2}
        with pytest.raises(LimitReached) as refused:
            await bench.admit(policy=policy)
        assert refused.value.retry_after_s == 86_400


async def test_a_raise_holds_until_its_end_without_a_new_policy(bench):
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    until = now + timedelta(hours=1)
    raised = limit("requests", "day", 2, raised_to=4, raised_until_ms=int(until.timestamp() * 1000))
    policy = await with_limits(bench, raised)
    with clock.frozen(now):
        assert (await outcomes(bench, policy, 5))[0] == {"ok": 4, "rate_limit_exceeded": 1}
    with clock.frozen(until):
        assert (await outcomes(bench, policy, 1))[0] == {"rate_limit_exceeded": 1}
        assert prepared(policy).limits[0].amount == 2


async def test_what_only_notifies_refuses_nothing_and_is_counted(bench):
    for kind, window in (
        ("requests", "minute"),
        ("requests", "day"),
        ("concurrency", "at_once"),
    ):
        policy = await with_limits(bench, limit(kind, window, 2, mode="notify"))
        told, admitted = await outcomes(bench, policy, 5)
        assert told == {"ok": 5}
        assert list((await bench.hits(policy)).values()) == [3]
        assert b"ratelimit" not in limit_headers(admitted[0]), "nobody is told of it"
    spend = limit("spend", "month", 10, mode="notify")
    policy = await with_limits(bench, spend)
    assert prepared(policy).limits == [], "usage tells of it"


async def test_who_is_open_at_once_is_told_by_settling_and_by_nothing_else(bench):
    policy = await with_limits(bench, limit("concurrency", "at_once", 2))
    first, second = await bench.admit(policy=policy), await bench.admit(policy=policy)
    assert (await outcomes(bench, policy, 1))[0] == {"concurrency_limit_exceeded": 1}
    await bench.settle(first)
    await bench.settle(first)  # twice gives one place back
    assert (await outcomes(bench, policy, 2))[0] == {"ok": 1, "concurrency_limit_exceeded": 1}
    await bench.settle(second)
    assert (await outcomes(bench, policy, 1))[0] == {"ok": 1}


async def test_a_stall_leaves_no_place_taken(bench):
    policy = await with_limits(bench, limit("concurrency", "at_once", 5))
    await outcomes(bench, policy, 0)
    pid = await bench.stall()
    try:
        answers = await asyncio.gather(
            *(bench.admit(policy=policy) for _ in range(20)), return_exceptions=True
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {type(answer).__name__ for answer in answers} == {"LuaUnavailable"}
    await bench.everything_owed_is_paid()
    assert (await outcomes(bench, policy, 6))[0] == {"ok": 5, "concurrency_limit_exceeded": 1}


async def test_what_a_caller_is_told_falls_by_what_was_billed(bench):
    policy = await with_limits(
        bench,
        limit("requests", "minute", 60, burst=10),
        limit("total_tokens", "minute", 60_000, level="key", burst=1000),
        limit("spend", "month", 5_000_000_000, level="project"),
        limit("spend", "day", 2_000_000_000, level="organisation"),
    )
    for applied in prepared(policy).limits[2:]:
        await bench.server.hset(
            applied.key, mapping={"left": 900_000_000, "granted": 1_000_000_000}
        )
    admission = await bench.admit(300_000_000, policy=policy, tokens_in=100, tokens_out=300)
    reserved, billed = limit_headers(admission).decode(), limit_headers(admission, 50).decode()
    assert reserved.splitlines() == [
        'ratelimit: "organisation-requests-minute";r=9;t=1, "key-total-tokens-minute";r=600;t=1',
        'ratelimit-policy: "organisation-requests-minute";q=60;w=60, '
        '"key-total-tokens-minute";q=60000;qu="tokens";w=60',
        "x-ratelimit-limit-requests: 60",
        "x-ratelimit-remaining-requests: 9",
        "x-ratelimit-reset-requests: 1s",
        "x-ratelimit-limit-tokens: 60000",
        "x-ratelimit-remaining-tokens: 600",
        "x-ratelimit-reset-tokens: 400ms",
        "x-meterplane-budget: organisation-day",
        "x-meterplane-budget-limit: 2.000000000",
        "x-meterplane-budget-remaining: 1.600000000",
    ]
    assert "x-meterplane-budget-remaining: 1.899999950\r\n" in billed
    await bench.settle(admission, 50)
    after = await bench.admit(0, policy=policy)
    assert "x-meterplane-budget-remaining: 1.899999950\r\n" in limit_headers(after).decode()


async def test_a_refusal_names_its_limit_in_the_headers(bench):
    policy = await with_limits(bench, limit("requests", "minute", 6, burst=1))
    await bench.admit(policy=policy)
    with pytest.raises(LimitReached) as refused:
        await bench.admit(policy=policy)
    told = refusal_headers(refused.value).decode()
    assert '"organisation-requests-minute";r=0;t=10' in told
    assert "x-ratelimit-remaining-requests: 0\r\n" in told


async def test_any_walk_of_requests_leaves_what_the_oracle_says(bench):
    """Random requests over random limits, each settled, given up or left open."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    for _ in range(5):
        policy = await with_limits(
            bench,
            limit("requests", "day", 150, level="key"),
            limit("output_tokens", "day", 3000, level="project"),
            limit("concurrency", "at_once", 10),
            *budgets(random_, amount=1_000_000),
        )
        spent = tokens = requests = 0
        open_: list = []
        for _ in range(250):
            nano, out = random_.randrange(20_000), random_.randrange(60)
            held = sum(each.reserved_nano for each, _ in open_)
            fits = (
                requests < 150
                and tokens + sum(o for _, o in open_) + out <= 3000
                and len(open_) < 10
                and spent + held + nano <= 1_000_000
            )
            (outcome,) = await asyncio.gather(
                bench.admit(nano, policy=policy, tokens_out=out), return_exceptions=True
            )
            assert fits != isinstance(outcome, Exception), outcome
            if fits:
                requests += 1
                open_.append((outcome, out))
            while open_ and random_.random() < 0.6:
                admission, most = open_.pop(random_.randrange(len(open_)))
                cost = random_.randrange(admission.reserved_nano + 1)
                used = random_.randrange(most + 1)
                await bench.settle(admission, cost, 0, used)
                spent, tokens = spent + cost, tokens + used
        held = sum(each.reserved_nano for each, _ in open_)
        assert await bench.pools(policy) == ({1_000_000 - spent - held}, {held})
        for admission, _ in open_:
            await bench.settle(admission)
        assert await bench.pools(policy) == ({1_000_000 - spent}, {0})
        assert await bench.reservations() == []


async def test_a_policy_changes_what_holds_at_once(bench):
    policy = await with_limits(bench, limit("requests", "day", 1))
    await bench.admit(policy=policy)
    lowered = msgspec.structs.replace(
        policy, version=policy.version + 1, limits=[limit("requests", "day", 5)]
    )
    bench.policies.current = lowered
    await bench.know(lowered)
    admission = await bench.admit(policy=policy)  # held by a worker that has not heard of it
    assert (admission.policy, admission.left) == (lowered, [3])
