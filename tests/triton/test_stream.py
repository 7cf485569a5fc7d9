"""An answer that is still coming: taken as it arrives, given up at once, never mixed up."""

import asyncio
import os
import signal
import sys
import time

import pytest

from meterplane.triton.connection import BUFFERED_BYTES_MAX
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable
from tests.triton.fleets import (
    OK,
    STREAM_END,
    STREAM_HEAD,
    ask,
    forever,
    open_stream,
    piece,
    state,
)
from tests.triton.scripted import Peer, scripted


async def drain(upstream, into: list[bytes]) -> None:
    while (block := await upstream.block()) is not None:
        into.append(block)


async def test_a_block_is_everything_that_has_arrived(fleets):
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + b"".join(piece(b"%d" % i) for i in range(5)))
        await go_on.wait()
        await peer.send(piece(b"rest") + STREAM_END)
        await forever(peer)

    async with scripted(script) as server:
        fleet = fleets(server.url)
        upstream = await open_stream(fleet.pool())
        assert await upstream.block() == b"01234"
        go_on.set()
        assert await upstream.block() == b"rest"
        assert [await upstream.block() for _ in range(3)] == [None] * 3
        upstream.close()
        upstream.close()
        assert state(fleet, server.url).in_flight == 0
        assert (await ask(fleet.pool())).body == b"hello"
        assert server.connections == 1


async def test_closing_early_aborts_at_once_and_counts_once(fleets):
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + piece(b"x"))
        await peer.gone()
        gone.set()

    async with scripted(script) as server:
        fleet = fleets(server.url)
        upstream = await open_stream(fleet.pool())
        upstream.close()
        upstream.close()
        await asyncio.wait_for(gone.wait(), 10)
        assert await upstream.block() is None
        assert state(fleet, server.url).in_flight == 0
        assert state(fleet, server.url).idle_connections == 0


async def test_a_cancelled_block_takes_its_connection_with_it(fleets):
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.gone()
        gone.set()

    async with scripted(script) as server:
        fleet = fleets(server.url)
        upstream = await open_stream(fleet.pool())
        task = asyncio.create_task(upstream.block())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 10)
        assert state(fleet, server.url).in_flight == 0
        assert state(fleet, server.url).idle_connections == 0


async def test_a_cancelled_send_takes_its_connection_with_it(fleets):
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        gone.set()

    async with scripted(script) as server:
        fleet = fleets(server.url)
        task = asyncio.create_task(open_stream(fleet.pool()))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 10)
        assert state(fleet, server.url).in_flight == 0


async def test_an_idle_time_begins_with_each_wait_and_no_earlier(fleets):
    """Pieces that come in time never add up to a timeout; neither does a reader that pauses."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, *(piece(b"x") for _ in range(8)), pause_s=0.06)
        await peer.gone()

    async with scripted(script) as server:
        upstream = await open_stream(fleets(server.url).pool(), idle_timeout_s=0.15)
        assert await upstream.block() == b"x"
        await asyncio.sleep(0.3)
        received: list[bytes] = []
        begun = time.monotonic()
        with pytest.raises(TritonTimeout):
            await drain(upstream, received)
        assert b"".join(received) == b"x" * 7
        assert time.monotonic() - begun < 5


async def test_a_whole_answer_may_take_longer_than_its_idle_time_while_it_moves(fleets):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, *(piece(b"x") for _ in range(8)), STREAM_END, pause_s=0.06)
        await peer.request()
        await peer.send(STREAM_HEAD + piece(b"x"))
        await peer.gone()

    async with scripted(script) as server:
        pool = fleets(server.url).pool()
        assert (await ask(pool, idle_timeout_s=0.2)).body == b"x" * 8
        begun = time.monotonic()
        with pytest.raises(TritonTimeout):
            await ask(pool, idle_timeout_s=0.2, first_byte_timeout_s=0.1)
        assert 0.15 < time.monotonic() - begun < 5
        assert server.connections == 1


async def test_a_long_deadline_on_a_kept_connection_gives_way_to_a_short_one(fleets):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.gone()

    async with scripted(script) as server:
        pool = fleets(server.url).pool()
        await ask(pool, first_byte_timeout_s=60.0, idle_timeout_s=60.0)
        begun = time.monotonic()
        with pytest.raises(TritonTimeout):
            await ask(pool, first_byte_timeout_s=0.1)
        assert time.monotonic() - begun < 5
        assert server.connections == 1


async def test_a_stream_through_a_slow_reader_arrives_whole(fleets):
    total = 40 * BUFFERED_BYTES_MAX

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(STREAM_HEAD + piece(b"x" * 65536) * (total // 65536) + STREAM_END)
        await peer.gone()

    async with scripted(script) as server:
        upstream = await open_stream(fleets(server.url).pool())
        received, largest = 0, 0
        while (block := await upstream.block()) is not None:
            received += len(block)
            largest = max(largest, len(block))
            await asyncio.sleep(0.001)
        assert received == total
        assert largest < 3 * BUFFERED_BYTES_MAX


async def test_a_server_killed_mid_stream_is_broken_then_ejected_then_trusted_again(
    fleets, tmp_path
):
    """A real process, killed without warning."""
    program = tmp_path / "server.py"
    program.write_text(
        "import asyncio, sys\n"
        "async def serve(reader, writer):\n"
        "    await reader.readuntil(b'\\r\\n\\r\\n')\n"
        "    writer.write(b'HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n')\n"
        "    while True:\n"
        "        writer.write(b'1\\r\\nx\\r\\n')\n"
        "        await asyncio.sleep(0.005)\n"
        "async def main():\n"
        "    server = await asyncio.start_server(serve, '127.0.0.1', int(sys.argv[1]))\n"
        "    print(server.sockets[0].getsockname()[1], flush=True)\n"
        "    await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )

    async def begin(port: int) -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), str(port), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        return process, int(await process.stdout.readline())

    process, port = await begin(0)
    url = f"http://127.0.0.1:{port}"
    fleet = fleets(url)
    try:
        upstreams = [await open_stream(fleet.pool()) for _ in range(5)]
        received = [await upstream.block() for upstream in upstreams]
        os.kill(process.pid, signal.SIGKILL)
        for upstream in upstreams:
            with pytest.raises(TritonBroken):
                await drain(upstream, [])
        assert all(received)
        assert state(fleet, url).in_flight == 0
        await process.wait()  # until then the kernel may still accept for it
        with pytest.raises(TritonUnavailable):
            await ask(fleet.pool())
        assert not state(fleet, url).healthy
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    process, _ = await begin(port)
    try:
        upstream = await open_stream(fleet.pool())
        assert await upstream.block()
        assert state(fleet, url).healthy
        upstream.close()
    finally:
        process.kill()
        await process.wait()
