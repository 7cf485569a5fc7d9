"""Calls share trips, and neither a caller who leaves nor a Redis that forgets mixes answers up."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time

import pytest
import redis.asyncio as redis

from meterplane.gateway import lua_calls
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, Script
from meterplane.kernel.limits import ADMISSION_TIMEOUT_S
from tests.conftest import eventually

ECHO = Script("redis.call('INCR', KEYS[1]) return ARGV[1]")


def echo(text, key="k"):
    """Answers its argument and counts in its key."""
    return ECHO.command([key], [str(text)])


@contextlib.asynccontextmanager
async def calls_to(url, timeout_s=20.0):
    made = LuaCalls(url, [ECHO], timeout_s)
    made.start()
    yield made
    await made.close()


@pytest.fixture
async def calls(redis_url):
    async with calls_to(redis_url, ADMISSION_TIMEOUT_S) as made:
        await eventually(lambda: made.answering_for_s() > 0, "the connection")
        yield made


@pytest.fixture
async def server(redis_url):
    """A client of the same Redis, beside the one under test."""
    async with redis.Redis.from_url(redis_url) as client:
        yield client


@contextlib.asynccontextmanager
async def stopped(server):
    """Redis takes connections and bytes, and answers nothing."""
    pid = (await server.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_calls_that_come_together_leave_together(calls):
    texts = [str(number) for number in range(500)]
    answers = await asyncio.gather(*(calls.ask(echo(text)) for text in texts))
    assert [answer.decode() for answer in answers] == texts
    assert (calls.trips, calls.calls) == (2, 500)


async def test_calls_that_arrive_during_a_trip_are_the_next_one(calls):
    first = calls.ask(echo(0))
    await asyncio.sleep(0)
    assert calls.trips == 1
    rest = [calls.ask(echo(number)) for number in range(1, 100)]
    assert await first == b"0"
    assert await asyncio.gather(*rest) == [str(number).encode() for number in range(1, 100)]
    assert calls.trips in (2, 3)


async def test_many_calls_are_two_trips_answered_in_the_order_of_asking(calls, server):
    async with stopped(server):
        asked = [calls.ask(echo(number, f"key{number % 3}")) for number in range(40)]
        await asyncio.sleep(0)
        assert calls.trips == 2
        asked += [calls.ask(echo(number)) for number in range(40, 60)]
        await asyncio.sleep(0)
        assert calls.trips == 2, "the others wait until the first is back"
    assert await asyncio.gather(*asked) == [str(number).encode() for number in range(60)]
    assert calls.trips in (3, 4)
    assert (calls.connections, calls.failed_trips) == (1, 0)


async def test_few_calls_wait_for_the_trip_that_is_under_way(calls):
    few = lua_calls.SECOND_TRIP_CALLS_MIN - 1
    first = calls.ask(echo(0))
    await asyncio.sleep(0)
    rest = [calls.ask(echo(number)) for number in range(few)]
    await asyncio.sleep(0)
    assert calls.trips == 1
    assert await first == b"0"
    await asyncio.gather(*rest)
    assert calls.trips == 2


async def test_scripts_that_are_gone_are_given_again_to_both_trips_in_their_order(calls, server):
    await server.script_flush()
    asked = [calls.ask(echo(number)) for number in range(40)]
    assert await asyncio.gather(*asked) == [str(number).encode() for number in range(40)]
    assert await server.get("k") == b"40"
    assert calls.connections == 1


async def test_a_worker_that_was_late_itself_reads_what_redis_answered_in_time(calls, server):
    """Late while it read somebody's bytes: on uvloop timers come next, before further bytes."""
    ours, theirs = socket.socketpair()
    pid = (await server.info("server"))["process_id"]

    class Late(asyncio.Protocol):
        def data_received(self, _):
            os.kill(pid, signal.SIGCONT)
            time.sleep(2 * ADMISSION_TIMEOUT_S)

    transport, _ = await asyncio.get_running_loop().create_connection(Late, sock=ours)
    await calls.ask(echo("first"))
    try:
        async with stopped(server):
            answer = calls.ask(echo("second"))
            await asyncio.sleep(0)  # it is on its way
            theirs.send(b"x")
            assert await answer == b"second"
    finally:
        transport.abort()
        theirs.close()
    assert (calls.failed_trips, calls.connections) == (0, 1)


async def test_callers_who_leave_take_nobodys_answer(calls, server):
    async def ask(text):
        return await calls.ask(echo(text))

    for round_ in range(20):
        tasks = [asyncio.create_task(ask(i)) for i in range(30)]
        await asyncio.sleep(0)
        for _ in range(round_ % 4):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for index, answer in enumerate(answers):
            if not isinstance(answer, asyncio.CancelledError):
                assert answer == str(index).encode()
        assert all(not isinstance(answer, BaseException) for answer in answers[1::2])
    await calls.ask(echo("last"))
    assert await server.get("k") == b"601"  # a call whose caller left is made all the same
    assert calls.connections == 1


async def test_a_redis_without_our_scripts_is_given_them(calls, server):
    assert await calls.ask(echo(1)) == b"1"
    await server.script_flush()
    answers = await asyncio.gather(*(calls.ask(echo(i)) for i in range(5)))
    assert answers == [b"0", b"1", b"2", b"3", b"4"]
    assert await server.get("k") == b"6"
    assert calls.connections == 1


async def test_an_error_of_one_script_is_not_another_callers(calls):
    answers = await asyncio.gather(
        calls.ask(echo(1)), calls.ask(ECHO.command([], [])), return_exceptions=True
    )
    assert answers[0] == b"1"
    assert isinstance(answers[1], LuaUnavailable)


async def test_a_queue_has_an_end(calls, monkeypatch):
    monkeypatch.setattr(lua_calls, "CALLS_WAITING_MAX", 10)
    answers = await asyncio.gather(*(calls.ask(echo(i)) for i in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, LuaUnavailable) for answer in answers) == 10


async def test_a_redis_that_does_not_answer_fails_its_trip_in_time_and_is_asked_anew(calls, server):
    await calls.ask(echo(0))
    async with stopped(server):
        began = time.monotonic()
        first = calls.ask(echo(1))
        await asyncio.sleep(0)
        second = calls.ask(echo(2))  # waits, and leaves on the next connection
        with pytest.raises(LuaUnavailable):
            await first
        assert ADMISSION_TIMEOUT_S * 0.9 < time.monotonic() - began < ADMISSION_TIMEOUT_S * 10
        with pytest.raises(LuaUnavailable):
            await second
        assert time.monotonic() - began < ADMISSION_TIMEOUT_S * 20
    assert await calls.ask(echo(3)) == b"3"
    assert calls.failed_trips == 2


async def test_a_connection_that_redis_closes_is_replaced(calls, server):
    await calls.ask(echo(0))
    await server.client_kill_filter(_type="normal", skipme=True)
    await eventually(lambda: not calls.answering_for_s(), "the end of the connection")
    assert await calls.ask(echo(1)) == b"1"
    assert calls.connections == 2


async def test_a_redis_that_is_away_refuses_at_once(tmp_path):
    async with calls_to(f"unix://{tmp_path}/nobody.sock") as calls:
        began = time.monotonic()
        with pytest.raises(LuaUnavailable):
            await calls.ask(echo(1))
        assert time.monotonic() - began < 10


async def test_what_was_told_is_made_before_closing(redis_url, server):
    unanswered = []
    async with calls_to(redis_url) as calls:
        for number in range(1000):
            calls.tell(echo(number, "told"), unanswered.append)
    assert await server.get("told") == b"1000"
    assert unanswered == []
    done = calls.tell(echo(1, "told"), unanswered.append)
    assert await done is None
    assert unanswered == [echo(1, "told")]


async def test_closing_without_a_redis_tells_everyone(calls, server, monkeypatch):
    unanswered = []
    async with stopped(server):
        asked = [calls.ask(echo(number)) for number in range(300)]
        told = calls.tell(echo("told"), unanswered.append)
        await calls.close()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, LuaUnavailable) for answer in answers)
    assert await told is None
    assert unanswered == [echo("told")]


async def test_what_is_owed_is_paid_when_redis_is_back(calls, server, monkeypatch):
    monkeypatch.setattr("meterplane.gateway.insist.PAUSE_S", 0.01)
    insist = Insist(calls)
    insist.start()
    async with stopped(server):
        for number in range(300):
            insist.owe(echo(number, "owed"))
        await asyncio.sleep(0.4)
        assert insist.owed == 300
    await eventually(lambda: not insist.owed, "paying what is owed")
    assert int(await server.get("owed")) >= 300  # it may have happened before, too
    await insist.close()


async def test_what_is_owed_waits_until_redis_has_answered_for_a_while(calls, server, monkeypatch):
    """A Redis that wakes reads old connections in pieces: a release must not overtake its call."""
    monkeypatch.setattr("meterplane.gateway.insist.PAUSE_S", 0.3)
    await calls.ask(echo(0))
    await asyncio.sleep(0.3)
    insist = Insist(calls)
    insist.start()
    async with stopped(server):
        with pytest.raises(LuaUnavailable):
            await calls.ask(echo(1))
        insist.owe(echo(1, "owed"))
        await asyncio.sleep(0.5)
    back = time.monotonic()
    await eventually(lambda: not insist.owed, "paying what is owed")
    assert time.monotonic() - back > 0.25
    await insist.close()


def said(*texts):
    """Answers that are texts of one character."""
    return b"".join(b"$1\r\n%b\r\n" % text.encode() for text in texts)


# Byte scripts. An exchange ends with its number: loading the script is the first.
LOADED = said("x", "1")
SURPLUS = [  # what a broken server may send for one call
    said("0", "1", "2"),  # one answer too many
    said("0", "3"),  # it says back what nobody told it
    said("2"),  # and the answer is missing
    b"nonsense\r\n",
]


@contextlib.asynccontextmanager
async def scripted(path, replies):
    """A server that answers each piece it reads with the next reply, whole or in pieces."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        with contextlib.suppress(ConnectionError):
            for reply in replies[len(connections) - 1]:
                if not await reader.read(65_536):
                    break
                for piece in reply if isinstance(reply, list) else [reply]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
            await reader.read(65_536)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield connections
    finally:
        server.close()
        for writer in connections:
            writer.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("surplus", [said("1"), b"$1"], ids=["an answer", "its beginning"])
async def test_what_comes_after_the_answers_breaks_the_connection(tmp_path, surplus):
    path = str(tmp_path / "scripted.sock")
    replies = [[LOADED, said("0", "2") + surplus], [LOADED, said("2", "2")]]
    async with scripted(path, replies) as connections, calls_to(f"unix://{path}") as calls:
        assert await calls.ask(echo(0)) == b"0"
        assert await calls.ask(echo(2)) == b"2"
        assert len(connections) == 2


@pytest.mark.parametrize("reply", SURPLUS)
async def test_an_answer_nobody_asked_for_breaks_the_connection(tmp_path, reply):
    path = str(tmp_path / "scripted.sock")
    async with scripted(path, [[LOADED, reply], [LOADED, said("2", "2")]]) as connections:
        async with calls_to(f"unix://{path}", 0.5) as calls:
            with pytest.raises(LuaUnavailable):
                await calls.ask(echo(0))
            assert await calls.ask(echo(2)) == b"2"
        assert len(connections) == 2


async def test_an_answer_that_comes_between_two_trips_breaks_the_connection(tmp_path):
    path = str(tmp_path / "scripted.sock")
    replies = [[LOADED, said("0", "2")], [LOADED, said("2", "2")]]
    async with scripted(path, replies) as connections, calls_to(f"unix://{path}") as calls:
        assert await calls.ask(echo(0)) == b"0"
        connections[0].write(said("9"))
        await asyncio.sleep(0.05)
        assert await calls.ask(echo(2)) == b"2"


async def test_an_answer_too_many_is_not_the_next_trips(tmp_path):
    """Two trips are under way: nobody of either is given an answer that may be another's."""
    path = str(tmp_path / "scripted.sock")
    both = said(*"abcdefghi", "2", *"abcdefgh", "3")
    async with scripted(path, [[LOADED, both]]), calls_to(f"unix://{path}") as calls:
        await eventually(lambda: calls.answering_for_s() > 0, "the connection")
        calls_made = [calls.ask(echo(number)) for number in range(16)]
        await asyncio.sleep(0)
        assert calls.trips == 2
        answers = await asyncio.gather(*calls_made, return_exceptions=True)
        assert all(isinstance(answer, LuaUnavailable) for answer in answers)


async def test_too_few_answers_are_no_answer(tmp_path):
    path = str(tmp_path / "scripted.sock")
    async with (
        scripted(path, [[LOADED, said("0")], []]),
        calls_to(f"unix://{path}", 0.5) as calls,
    ):
        answers = await asyncio.gather(
            calls.ask(echo(0)), calls.ask(echo(1)), return_exceptions=True
        )
        assert all(isinstance(answer, LuaUnavailable) for answer in answers)


async def test_answers_in_any_pieces_are_the_same_answers(tmp_path):
    path, whole = str(tmp_path / "scripted.sock"), b"*2\r\n$2\r\nok\r\n:7\r\n" + said("1", "2")
    pieces = [whole[index : index + 1] for index in range(len(whole))]
    async with scripted(path, [[LOADED, pieces]]), calls_to(f"unix://{path}") as calls:
        assert await asyncio.gather(calls.ask(echo(0)), calls.ask(echo(1))) == [[b"ok", 7], b"1"]


async def test_a_wrong_password_is_told_without_it(redis_url, caplog):
    path = redis_url.partition("@")[2]
    with caplog.at_level(logging.WARNING):
        async with calls_to(f"unix://:letmein@{path}") as calls:
            with pytest.raises(LuaUnavailable):
                await calls.ask(echo(1))
    assert "WRONGPASS" in caplog.text
    assert "letmein" not in caplog.text
