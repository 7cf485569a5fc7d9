"""Calls share trips, and neither a caller who leaves nor a Redis that forgets mixes answers up."""

import asyncio

import pytest

from meterplane.gateway import lua_calls
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, connect


class Echo:
    """A script that answers its argument and counts in its key."""

    source = "redis.call('INCR', KEYS[1]) return ARGV[1]"

    def __init__(self):
        self.sha = ""


@pytest.fixture
async def echo():
    return Echo()


@pytest.fixture
async def calls(redis_url, echo):
    made = LuaCalls(connect(redis_url), [echo])
    made.start()
    yield made
    await made.close()


async def test_calls_that_come_together_leave_together(calls, echo):
    texts = [str(number) for number in range(500)]
    answers = await asyncio.gather(*(calls.call(echo, ["k"], [text]) for text in texts))
    assert [answer.decode() for answer in answers] == texts
    assert calls.trips <= 4


async def test_callers_who_leave_take_nobodys_answer(calls, echo):
    for round_ in range(20):
        tasks = [asyncio.create_task(calls.call(echo, ["k"], [str(i)])) for i in range(30)]
        for _ in range(round_ % 4):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for index, answer in enumerate(answers):
            if not isinstance(answer, asyncio.CancelledError):
                assert answer == str(index).encode()
        assert all(not isinstance(answer, BaseException) for answer in answers[1::2])


async def test_a_redis_without_our_scripts_is_given_them(calls, echo, redis_url):
    assert await calls.call(echo, ["k"], ["1"]) == b"1"
    async with connect(redis_url) as other:
        await other.script_flush()
    assert await asyncio.gather(*(calls.call(echo, ["k"], [str(i)]) for i in range(5))) == [
        b"0", b"1", b"2", b"3", b"4",
    ]  # fmt: skip
    async with connect(redis_url) as other:
        assert await other.get("k") == b"6"


async def test_an_error_of_one_script_is_not_another_callers(calls, echo):
    answers = await asyncio.gather(
        calls.call(echo, ["k"], ["1"]), calls.call(echo, [], []), return_exceptions=True
    )
    assert answers[0] == b"1"
    assert isinstance(answers[1], LuaUnavailable)


async def test_a_queue_has_an_end(calls, echo, monkeypatch):
    monkeypatch.setattr(lua_calls, "CALLS_WAITING_MAX", 10)
    answers = await asyncio.gather(
        *(calls.call(echo, ["k"], [str(i)]) for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, LuaUnavailable) for answer in answers) == 10


async def test_what_is_owed_is_paid_when_redis_is_back(calls, echo, redis_url, monkeypatch):
    monkeypatch.setattr("meterplane.gateway.insist.PAUSE_S", 0.01)
    insist = Insist(calls)
    insist.start()
    down = True

    async def unreachable(*_):
        raise OSError("down")

    send = calls._send
    monkeypatch.setattr(calls, "_send", unreachable)
    insist.owe(echo, ["owed"], ["1"])
    await asyncio.sleep(0.1)
    monkeypatch.setattr(calls, "_send", send)
    async with connect(redis_url) as other:
        assert await other.get("owed") is None
        async with asyncio.timeout(2):
            while down:
                down = await other.get("owed") != b"1"
                await asyncio.sleep(0.01)
    await insist.close()
