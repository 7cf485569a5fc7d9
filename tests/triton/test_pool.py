"""Which server is asked, which is asked instead, and what is never asked twice."""

import asyncio

import pytest

from meterplane.triton.circuit import FAILURES_MAX
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable
from tests.triton.fleets import BUSY, OK, ask, dead_url, forever, open_stream, state
from tests.triton.scripted import Peer, scripted

UNKNOWN = (
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 63\r\n\r\n"
    b'{"error":"Request for unknown model: \'m\' is not found"}        '
)


def expire(fleet, url: str) -> None:
    """Let a server's ejection be over, as if its time had passed."""
    fleet._servers[url].circuit._until = 0.0


async def test_of_two_random_servers_the_less_busy_is_asked(fleets):
    """Thirty requests that stay, over three servers: none has more than two more than another."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await release.wait()
            await peer.send(OK)

    async with scripted(script) as a, scripted(script) as b, scripted(script) as c:
        fleet = fleets(a.url, b.url, c.url)
        waiting = [asyncio.create_task(ask(fleet.pool())) for _ in range(30)]
        await asyncio.sleep(0.1)
        busy = [server.in_flight for server in fleet.snapshot()]
        assert sum(busy) == 30
        assert max(busy) - min(busy) <= 4  # at random it would be 6 on average
        release.set()
        await asyncio.gather(*waiting)
        assert [server.in_flight for server in fleet.snapshot()] == [0, 0, 0]


async def test_pools_that_name_a_server_share_its_connections_and_its_count(fleets):
    async with scripted(forever) as a, scripted(forever) as b:
        fleet = fleets(a.url)
        assert fleet.pool() is fleet.pool([a.url])
        assert fleet.pool([a.url, b.url]) is fleet.pool((a.url, b.url))
        await ask(fleet.pool())
        for _ in range(20):
            await ask(fleet.pool((a.url, b.url)))
        assert (a.connections, b.connections) == (1, 1)
        assert sum(s.requests for s in fleet.snapshot()) == 21


async def test_an_address_that_cannot_be_spoken_to_makes_no_pool(fleets):
    fleet = fleets("http://own:8000")
    with pytest.raises(ValueError, match="ftp"):
        fleet.pool(["http://fine:1", "ftp://other"])
    assert len(fleet.snapshot()) == 1


@pytest.mark.parametrize("dead", [1, 2])
async def test_a_server_that_cannot_be_connected_to_is_passed_over_and_then_left_out(fleets, dead):
    urls = [dead_url() for _ in range(dead)]
    async with scripted(forever) as server:
        fleet = fleets(*urls, server.url)
        answers = [await ask(fleet.pool()) for _ in range(40)]
        assert {(answer.status, answer.server) for answer in answers} == {(200, server.url)}
        assert max(answer.retries for answer in answers) <= dead
        assert sum(answer.retries for answer in answers) <= dead  # once each: then it is ejected
        assert all(state(fleet, url).failures <= 1 for url in urls)


async def test_at_most_three_servers_are_tried(fleets):
    fleet = fleets(*(dead_url() for _ in range(6)))
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    assert sum(server.failures for server in fleet.snapshot()) == 3


async def test_when_all_are_ejected_the_one_whose_failure_is_oldest_is_asked(fleets):
    urls = [dead_url(), dead_url()]
    fleet = fleets(*urls)
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    assert [server.healthy for server in fleet.snapshot()] == [False, False]
    failed_first = min(fleet._servers.values(), key=lambda server: server.circuit.failed_at)
    async with scripted(forever, port=int(failed_first.url.rpartition(":")[2])):
        answer = await ask(fleet.pool())
        assert (answer.status, answer.retries) == (200, 0)
        assert state(fleet, failed_first.url).healthy


@pytest.mark.parametrize("how", ["silent", "broken", "502"])
async def test_three_failures_in_a_row_eject_and_the_others_are_asked(fleets, how):
    async def failing(peer: Peer) -> None:
        while await peer.request():
            if how == "silent":
                await peer.gone()
            elif how == "broken":
                await peer.send(b"garbage\r\n\r\n")
            else:
                await peer.send(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")

    async with scripted(failing) as bad, scripted(forever) as good:
        fleet = fleets(bad.url, good.url)
        failures = 0
        for _ in range(60):
            try:
                failures += (await ask(fleet.pool(), first_byte_timeout_s=0.05)).status != 200
            except (TritonTimeout, TritonBroken):
                failures += 1
        assert failures == FAILURES_MAX
        assert not state(fleet, bad.url).healthy
        assert state(fleet, bad.url).ejected_for_s > 0
        assert state(fleet, good.url).healthy


async def test_half_open_lets_exactly_one_request_through_until_it_is_answered(fleets):
    release = asyncio.Event()
    asked = 0

    async def recovering(peer: Peer) -> None:
        nonlocal asked
        while await peer.request():
            asked += 1
            await release.wait()
            await peer.send(OK)

    url = dead_url()
    async with scripted(forever) as other:
        fleet = fleets(url, other.url)
        for _ in range(20):
            await ask(fleet.pool())
        assert not state(fleet, url).healthy
        async with scripted(recovering, port=int(url.rpartition(":")[2])):
            expire(fleet, url)
            waiting = [asyncio.create_task(ask(fleet.pool())) for _ in range(40)]
            async with asyncio.timeout(20):
                for answered in asyncio.as_completed(waiting[1:]):  # all but the trial
                    await answered
            await asyncio.sleep(0.05)
            assert asked == 1
            release.set()
            await asyncio.gather(*waiting)
            assert state(fleet, url).healthy
            for _ in range(20):
                await ask(fleet.pool())
            assert asked > 1


async def test_a_trial_that_fails_ejects_for_longer_and_its_caller_is_answered_by_another(fleets):
    url = dead_url()
    async with scripted(forever) as other:
        fleet = fleets(url, other.url)
        for _ in range(20):
            await ask(fleet.pool())
        expire(fleet, url)
        for _ in range(20):
            assert (await ask(fleet.pool())).status == 200
        assert state(fleet, url).failures == 2
        assert state(fleet, url).ejected_for_s > 1.25  # more than a first time's longest


async def test_a_cancelled_trial_lets_another_one_through(fleets):
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    url = dead_url()
    fleet = fleets(url)
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    async with scripted(silent, port=int(url.rpartition(":")[2])) as server:
        for round_ in (1, 2):
            expire(fleet, url)
            task = asyncio.create_task(ask(fleet.pool()))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.connections == round_
            assert fleet._servers[url].circuit.half_open(1e12)
            assert state(fleet, url).in_flight == 0


@pytest.mark.parametrize("answer", [BUSY, UNKNOWN], ids=["503", "unknown model"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_a_server_did_not_take_another_is_asked_for(fleets, answer, streamed):
    async def script(peer: Peer) -> None:
        await forever(peer, answer)

    async with scripted(script) as without, scripted(forever) as with_it:
        fleet = fleets(without.url, with_it.url)
        for _ in range(20):
            if streamed:
                got = await open_stream(fleet.pool(), "/m")
                assert await got.read() == b"hello"
            else:
                got = await ask(fleet.pool(), "/m")
            assert (got.status, got.server) == (200, with_it.url)
        # Not asked again for this for a moment, nor thought ill of.
        assert state(fleet, without.url).requests == 1
        assert state(fleet, without.url).healthy
        assert state(fleet, without.url).in_flight == 0
        assert without.connections == 1  # and its connection is kept


async def test_a_model_that_one_server_lacks_does_not_close_it_for_other_models(fleets):
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            await peer.send(UNKNOWN if b"/absent" in request else OK)

    async with scripted(script) as partial, scripted(forever) as full:
        fleet = fleets(partial.url, full.url)
        for _ in range(30):
            await ask(fleet.pool(), "/absent")
            await ask(fleet.pool(), "/present")
        assert 5 < state(fleet, partial.url).requests <= 31


async def test_a_refusal_by_all_is_the_callers_answer(fleets):
    async def script(peer: Peer) -> None:
        await forever(peer, BUSY)

    async with scripted(script) as a, scripted(script) as b:
        fleet = fleets(a.url, b.url)
        answer = await ask(fleet.pool())
        assert (answer.status, answer.retries) == (503, 1)
        assert [server.healthy for server in fleet.snapshot()] == [True, True]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
        b'HTTP/1.1 400 Bad Request\r\ncontent-length: 30\r\n\r\n{"error":"Bad:  is not ready"}',
        b"HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_an_answer_of_another_kind_is_never_asked_for_twice(fleets, answer):
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        while await peer.request():
            asked += 1
            await peer.send(answer)

    async with scripted(script) as a, scripted(script) as b:
        fleet = fleets(a.url, b.url)
        for _ in range(10):
            got = await ask(fleet.pool())
            assert got.status >= 400
            assert got.retries == 0
        assert asked == 10
        assert all(server.healthy for server in fleet.snapshot())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", OK[:-2]], ids=["nothing", "head", "body"])
async def test_what_a_server_may_have_begun_is_not_given_to_another(fleets, sent):
    """On a new connection: the request was read, and then the server was gone."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        await peer.send(sent)
        peer.close()

    async with scripted(script) as a, scripted(script) as b:
        fleet = fleets(a.url, b.url)
        with pytest.raises((TritonUnavailable, TritonBroken)):
            await ask(fleet.pool())
        assert asked == 1


async def test_a_model_whose_process_died_is_asked_for_elsewhere_next_time(fleets):
    died = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 40\r\n\r\n"
    died += b'{"error":"Stub process is not healthy."}'

    async def script(peer: Peer) -> None:
        await forever(peer, died)

    async with scripted(script) as dead, scripted(forever) as alive:
        fleet = fleets(dead.url, alive.url)
        statuses = [(await ask(fleet.pool())).status for _ in range(30)]
        assert statuses.count(400) <= 1  # it may have died of this request: not sent again
        assert statuses[-1] == 200


async def test_a_callers_words_about_health_send_nobody_elsewhere(fleets):
    said = b'{"error":"bad input: Stub process is not healthy."}'
    refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)

    async def script(peer: Peer) -> None:
        await forever(peer, refused)

    async with scripted(script) as first, scripted(script) as second:
        fleet = fleets(first.url, second.url)
        assert {(await ask(fleet.pool())).status for _ in range(10)} == {400}
        assert all(server.steady for server in fleet.pool().servers)


async def test_a_busy_server_gives_way_to_another_and_is_not_ejected(fleets):
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await release.wait()
            await peer.send(OK)

    async with scripted(script) as a, scripted(script) as b:
        fleet = fleets(a.url, b.url, connections_per_server_max=2)
        waiting = [asyncio.create_task(ask(fleet.pool())) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(TritonUnavailable, match="busy"):
            await ask(fleet.pool())
        assert all(server.healthy and server.in_flight == 2 for server in fleet.snapshot())
        release.set()
        await asyncio.gather(*waiting)


async def test_pools_that_nobody_names_any_more_give_way(fleets, monkeypatch):
    monkeypatch.setattr("meterplane.triton.fleet.POOLS_MAX", 3)
    fleet = fleets("http://own:1")
    own = fleet.pool()
    for port in range(2, 10):
        fleet.pool([f"http://other:{port}", "http://own:1"])
    assert fleet.pool() is own is fleet.pool(["http://own:1"])
    assert len(fleet.snapshot()) == 3
