"""A worker is not ready where the limiter does not limit, whatever is wrong with it."""

import contextlib

import pytest

from meterplane.gateway import admission_commands, self_test
from meterplane.gateway.lua_calls import LuaCalls, Script
from meterplane.gateway.readiness import Readiness
from tests.gateway.admission_bench import open_bench


class Good:
    """Policies that can be read, and a journal that writes."""

    healthy = True

    async def readable(self):
        return True


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


async def test_a_limiter_that_limits_is_proven_and_leaves_nothing(bench):
    keys = set(await bench.server.keys("*"))
    assert await self_test.limiter_refuses(bench.calls)
    assert set(await bench.server.keys("*")) == keys
    readiness = Readiness(bench.calls, Good(), Good())
    assert await readiness.missing() == []


async def test_it_is_proven_once_on_each_connection(bench):
    readiness = Readiness(bench.calls, Good(), Good())
    for _ in range(3):
        readiness._away._looked_at = 0.0
        assert await readiness.missing() == []
    asked = bench.calls.calls
    readiness._away._looked_at = 0.0
    await readiness.missing()
    assert bench.calls.calls == asked + 1


@pytest.mark.parametrize(
    ("script", "right", "wrong"),
    [
        ("ADMIT", "stale = version ~= ARGV[1]", "stale = false"),
        ("ADMIT", "if limit.left - limit.above < nano then", "if false then"),
        ("ADMIT", "if ahead > limit.window + limit.a / 100 then", "if false then"),
        ("ADMIT", "call('HINCRBY', key, 'left', text('-%.0f', added))", ""),
        ("SETTLE", "call('GETDEL', key)", "call('GET', key)"),
        ("CREDIT", "local credited = redis.call('SADD', KEYS[2], ARGV[2])", "local credited = 1"),
    ],
)
async def test_a_limiter_that_does_not_limit_is_found(
    redis_url, monkeypatch, caplog, script, right, wrong
):
    source = getattr(admission_commands, script).source
    assert source.count(right) == 1
    broken = Script(source.replace(right, wrong))
    monkeypatch.setattr(admission_commands, script, broken)
    calls = LuaCalls(redis_url, [*admission_commands.SCRIPTS, broken])
    calls.start()
    try:
        readiness = Readiness(calls, Good(), Good())
        assert await readiness.missing() == ["limiter_does_not_limit"]
    finally:
        await calls.close()
    assert "the limiter does not limit" in caplog.text
