"""The client against servers that answer byte by byte, badly, late, or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from meterplane.kernel.invariant import InvariantBroken
from meterplane.triton import pool as pool_module
from meterplane.triton import server as server_module
from meterplane.triton.client import TritonClient
from meterplane.triton.connection import BUFFERED_BYTES_MAX, HEAD_BYTES_MAX
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable
from tests.triton.fleets import dead_url
from tests.triton.scripted import Peer, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2\r\nlo\r\n0\r\ntrailer: x\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nhello"


async def forever(peer: Peer, answer: bytes = OK) -> None:
    while await peer.request():
        await peer.send(answer)


class Clients:
    def __init__(self) -> None:
        self.made: list[TritonClient] = []

    def __call__(self, *urls: str) -> TritonClient:
        self.made.append(TritonClient(list(urls)))
        return self.made[-1]


@pytest.fixture
async def connect() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    for each in clients.made:
        await each.close()
    await asyncio.sleep(0)  # aborted transports report their end in the loop's next round


@pytest.mark.parametrize("answer", [OK, CHUNKED, TO_THE_END], ids=["length", "chunked", "closed"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_may_be_cut_anywhere(connect, answer, size):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*(answer[i : i + size] for i in range(0, len(answer), size)))

    async with scripted(script) as server:
        got = await connect(server.url).request("POST", "/x", b"body")
    assert (got.status, got.body, got.server) == (200, b"hello", server.url)


async def test_a_request_says_what_it_is(connect):
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    async with scripted(script) as server:
        got = await connect(server.url).request("POST", "/v2/x", b"body", {"content-type": "a/b"})
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v2/x HTTP/1.1"
    assert sorted(head.split(b"\r\n")[1:]) == sorted(
        [b"host: " + server.url[7:].encode(), b"content-length: 4", b"content-type: a/b"]
    )
    assert body == b"body"
    assert got.headers[b"content-type"] == b"text/plain"


async def test_a_connection_is_used_again_after_a_whole_answer(connect):
    async with scripted(forever) as server:
        client = connect(server.url)
        for _ in range(3):
            assert (await client.request("GET", "/")).body == b"hello"
        assert server.connections == 1


async def test_an_error_status_is_an_answer_and_keeps_the_connection(connect):
    async def script(peer: Peer) -> None:
        await forever(peer, b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")

    async with scripted(script) as server:
        client = connect(server.url)
        assert [(await client.request("GET", "/")).status for _ in range(2)] == [404, 404]
        assert server.connections == 1


async def test_a_server_that_says_close_is_connected_to_again(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK.replace(b"\r\ncontent", b"\r\nconnection: close\r\ncontent", 1))

    async with scripted(script) as server:
        client = connect(server.url)
        for _ in range(2):
            assert (await client.request("GET", "/")).body == b"hello"
        assert server.connections == 2


async def test_an_interim_answer_is_not_the_answer(connect):
    async def script(peer: Peer) -> None:
        await forever(peer, b"HTTP/1.1 100 Continue\r\nx: interim\r\n\r\n" + OK)

    async with scripted(script) as server:
        client = connect(server.url)
        for _ in range(2):
            got = await client.request("GET", "/")
            assert (got.status, got.body) == (200, b"hello")
            assert b"x" not in got.headers


@pytest.mark.parametrize(
    "trailing",
    [OK, b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nbad", b"garbage"],
    ids=["a second answer", "another status", "garbage"],
)
@pytest.mark.parametrize("together", [True, False])
async def test_bytes_after_an_answer_reach_nobody(connect, trailing, together):
    """Whatever follows a whole answer would become the answer of the next request."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(*([OK + trailing] if together else [OK, trailing]))

    async with scripted(script) as server:
        client = connect(server.url)
        for _ in range(3):
            got = await client.request("GET", "/")
            assert (got.status, got.body) == (200, b"hello")
            await asyncio.sleep(0.02)
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nstuff",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (HEAD_BYTES_MAX // 6),
        b"HTTP/1.1 200 OK\r\na: " + b"b" * (2 * HEAD_BYTES_MAX),
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",  # then it closes
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200",
    ],
    ids=[
        "garbage",
        "length and chunks",
        "negative length",
        "bad chunk",
        "upgrade",
        "many headers",
        "long header",
        "short body",
        "unfinished chunks",
        "unfinished head",
    ],
)
async def test_a_malformed_answer_is_a_502(connect, answer):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.close()

    async with scripted(script) as server:
        with pytest.raises(TritonBroken) as caught:
            await connect(server.url).request("GET", "/")
    assert caught.value.status == 502


async def test_an_answer_that_is_too_large_is_cut_off(connect, monkeypatch):
    monkeypatch.setattr(pool_module, "UPSTREAM_RESPONSE_BYTES_MAX", 100_000)
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        await peer.gone()
        stopped.set()

    async with scripted(script) as server:
        with pytest.raises(TritonBroken, match="larger"):
            await connect(server.url).request("GET", "/")
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_server_that_does_not_answer_is_a_504(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with scripted(script) as server:
        begun = time.monotonic()
        with pytest.raises(TritonTimeout) as caught:
            await connect(server.url).request("GET", "/", first_byte_timeout_s=0.1)
        assert 0.09 < time.monotonic() - begun < 5
    assert caught.value.status == 504


async def test_a_head_that_only_drips_does_not_stretch_the_wait_for_it(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*(OK[i : i + 1] for i in range(len(OK))), pause_s=0.05)

    async with scripted(script) as server:
        begun = time.monotonic()
        with pytest.raises(TritonTimeout):
            await connect(server.url).request("GET", "/", first_byte_timeout_s=0.2)
        assert time.monotonic() - begun < 5


async def test_a_pause_inside_an_answer_is_a_504_and_ends_the_connection(connect):
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[:60])
        await peer.gone()
        stopped.set()

    async with scripted(script) as server:
        with pytest.raises(TritonTimeout):
            await connect(server.url).request("GET", "/", idle_timeout_s=0.1)
        await asyncio.wait_for(stopped.wait(), 10)


FRAMED = {
    "a trailer": CHUNKED[: CHUNKED.index(b"trailer")] + b"trailer: ",
    "many trailers": CHUNKED[: CHUNKED.index(b"trailer")],
    "a chunk's extension": CHUNKED[: CHUNKED.index(b"0\r\ntrailer")] + b"1;a=",
}


async def read_stream(client: TritonClient) -> None:
    async with client.stream("GET", "/") as answer:
        async for _ in answer.chunks():
            pass


@pytest.mark.parametrize("name", FRAMED)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_what_frames_a_body_is_bounded_as_a_head_is(connect, name, streamed):
    """The parser holds a line until it ends, and copies it with every read."""
    more = b"a: b\r\n" * 200 if name == "many trailers" else b"y" * 1200
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(FRAMED[name])
        while sent < 8 * 1024 * 1024:
            await peer.send(more)
            sent += len(more)

    async with scripted(script) as server:
        client = connect(server.url)
        with pytest.raises(TritonBroken, match="frames"):
            await (read_stream(client) if streamed else client.request("GET", "/"))
        assert sent < 8 * 1024 * 1024


async def test_trailers_that_drip_do_not_stretch_the_wait_for_the_end(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[: CHUNKED.index(b"trailer")], *[b"y"] * 100, pause_s=0.05)

    async with scripted(script) as server:
        begun = time.monotonic()
        with pytest.raises(TritonTimeout):
            await connect(server.url).request("GET", "/", idle_timeout_s=0.2)
        assert time.monotonic() - begun < 5


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_once(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()  # takes the second one, and dies of it
        peer.reset()

    async with scripted(script) as server:
        client = connect(server.url)
        for _ in range(2):
            assert (await client.request("POST", "/", b"x")).body == b"hello"
        assert server.connections == 2


async def test_a_request_that_kills_connections_is_sent_twice_at_most(connect):
    """However many kept connections there are: a poisonous request must not go through them all."""
    received = 0
    healthy = True

    async def script(peer: Peer) -> None:
        nonlocal received
        while await peer.request():
            if not healthy:
                received += 1
                peer.reset()
                return
            await asyncio.sleep(0.05)
            await peer.send(OK)

    async with scripted(script) as server:
        client = connect(server.url)
        await asyncio.gather(*(client.request("GET", "/") for _ in range(4)))
        assert server.connections == 4
        healthy = False
        with pytest.raises(TritonUnavailable) as caught:
            await client.request("POST", "/", b"poison")
    assert received == 2
    assert caught.value.status == 503


async def test_a_request_is_not_sent_again_once_an_answer_has_begun(connect):
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        received.append(await peer.request())
        await peer.send(OK)
        received.append(await peer.request())
        await peer.send(OK[:10])
        peer.reset()

    async with scripted(script) as server:
        client = connect(server.url)
        await client.request("GET", "/")
        with pytest.raises(TritonBroken):
            await client.request("GET", "/")
    assert len(received) == 2


async def test_a_server_that_cannot_be_reached_is_a_503(connect):
    with pytest.raises(TritonUnavailable) as caught:
        await connect(dead_url()).request("GET", "/")
    assert caught.value.status == 503
    assert caught.value.retry_after_s


async def test_with_one_server_down_every_request_is_served_by_the_other(connect):
    async with scripted(forever) as server:
        client = connect(dead_url(), server.url)
        answers = [(await client.request("GET", "/")).server for _ in range(40)]
    assert answers == [server.url] * 40


async def test_a_lone_server_is_asked_again_at_once_when_it_is_back(connect):
    url = dead_url()
    client = connect(url)
    with pytest.raises(TritonUnavailable):
        await client.request("GET", "/")

    async with scripted(forever, port=int(url.rpartition(":")[2])):
        assert (await client.request("GET", "/")).status == 200


async def test_the_busier_of_two_servers_is_spared(connect):
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await release.wait()
            await peer.send(OK)

    async with scripted(script) as first, scripted(script) as second:
        client = connect(first.url, second.url)
        waiting = [asyncio.create_task(client.request("GET", "/")) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (first.connections, second.connections) == (10, 10)
        release.set()
        await asyncio.gather(*waiting)


async def test_connections_are_bounded(connect, monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 3)
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await release.wait()
            await peer.send(OK)

    async with scripted(script) as server:
        client = connect(server.url)
        waiting = [asyncio.create_task(client.request("GET", "/")) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(TritonUnavailable, match="busy"):
            await client.request("GET", "/")
        release.set()
        await asyncio.gather(*waiting)
        assert (await client.request("GET", "/")).status == 200


async def test_a_cancelled_request_takes_its_connection_with_it(connect):
    """If it did not, the next request would be answered with the cancelled one's answer."""
    begun, ended = 0, 0

    async def script(peer: Peer) -> None:
        nonlocal begun, ended
        while request := await peer.request():
            if request.startswith(b"GET /slow"):
                begun += 1
                await peer.gone()
                ended += 1
                return
            await peer.send(OK)

    async with scripted(script) as server:
        client = connect(server.url)
        for pause_s in (0, 0.001, 0.05):
            task = asyncio.create_task(client.request("GET", "/slow"))
            await asyncio.sleep(pause_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.request("GET", "/fast")).body == b"hello"
        await asyncio.sleep(0.05)
        assert begun == ended >= 2
        assert client.fleet.snapshot()[0].in_flight == 0


async def test_a_stream_is_given_on_while_it_arrives(connect):
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[: CHUNKED.index(b"2\r\nlo")])
        await go_on.wait()
        await peer.send(CHUNKED[CHUNKED.index(b"2\r\nlo") :])
        await forever(peer)

    async with scripted(script) as server:
        client = connect(server.url)
        async with client.stream("POST", "/", b"{}") as upstream:
            assert upstream.status == 200
            chunks = upstream.chunks()
            assert await anext(chunks) == b"hel"
            go_on.set()
            assert [chunk async for chunk in chunks] == [b"lo"]
        assert (await client.request("GET", "/")).status == 200
        assert server.connections == 1


async def test_leaving_a_stream_early_closes_its_connection(connect):
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[:60])
        await peer.gone()
        stopped.set()

    async with scripted(script) as server:
        async with connect(server.url).stream("POST", "/", b"{}") as upstream:
            async for _ in upstream.chunks():
                break
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_stream_cut_off_gives_out_what_came_before(connect):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[: CHUNKED.index(b"2\r\nlo")])
        peer.close()

    async with (
        scripted(script) as server,
        connect(server.url).stream("POST", "/", b"{}") as upstream,
    ):
        chunks = upstream.chunks()
        assert await anext(chunks) == b"hel"
        with pytest.raises(TritonBroken):
            await anext(chunks)


async def test_a_slow_reader_slows_the_server_instead_of_filling_memory(connect):
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    total = 512
    unsent_at_rest = 0

    async def script(peer: Peer) -> None:
        nonlocal unsent_at_rest
        await peer.request()
        peer.write(CHUNKED[: CHUNKED.index(b"3\r\n")] + piece * total + b"0\r\n\r\n")
        await asyncio.sleep(0.3)
        unsent_at_rest = peer.unsent_bytes()
        await peer.gone()

    async with (
        scripted(script) as server,
        connect(server.url).stream("POST", "/", b"{}", idle_timeout_s=0.2) as upstream,
    ):
        received = len(await anext(upstream.chunks()))
        await asyncio.sleep(0.5)  # longer than the idle timeout: this pause is ours
        assert upstream._connection._buffered_bytes < 2 * BUFFERED_BYTES_MAX
        async for chunk in upstream.chunks():
            received += len(chunk)
    assert received == total * 65536
    assert unsent_at_rest > received // 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/x HTTP/1.1\r\nhost: evil\r\n\r\nGET /", {}),
        ("/x y", {}),
        ("no-slash", {}),
        ("/x", {"a": "b\r\nc: d"}),
        ("/x", {"a\r\nb": "c"}),
        ("/x", {"a": "b\nc: d"}),
    ],
)
async def test_a_request_cannot_smuggle_another(connect, path, headers):
    async with scripted(forever) as server:
        with pytest.raises(InvariantBroken):
            await connect(server.url).request("POST", path, b"", headers)
        assert server.connections == 0
