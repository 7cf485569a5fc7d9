"""Ten thousand connections, and as many streams, are held by one worker and let go again.

What each costs is printed. A stream is two descriptors of the gateway and two of this process,
which is its caller and its upstream: where the system gives fewer, fewer are held, and it is said.
"""

import asyncio
import json
import os
import resource
import time

import pytest

from meterplane.gateway.server import allow_descriptors
from meterplane.kernel.limits import CONNECTIONS_MAX
from tests.benchmarks.gateway.machine import resident_kb
from tests.conftest import eventually
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    asking,
    delta,
    deployed,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    target,
    totals,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(300)]

CONNECTIONS = 10_000
AT_ONCE = 200  # while they are opened: below every backlog
IDLE_KB_MAX = 6.0  # of one connection that asks nothing
STREAM_KB_MAX = 25.0  # a request, its task, its upstream connection and what both buffer
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT_S = 30.0
SPARE_DESCRIPTORS = 600
ANSWERS_WITHIN_S = 10.0


def descriptors() -> int:
    allow_descriptors()
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS


class Callers:
    """Connections to one gateway."""

    def __init__(self, gateway) -> None:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, sent: bytes, until: bytes) -> bytes:
        """One more connection, which is kept; what it was answered, up to `until`."""
        async with self._gate:
            reader, writer = await asyncio.open_connection(*self._address, limit=16 * 1024)
            self.open.append((reader, writer))
            writer.write(sent)
            async with asyncio.timeout(WAIT_S):
                return await reader.readuntil(until)

    async def ask_often(self, times: int, sent: bytes, until: bytes) -> list[bytes]:
        return await asyncio.gather(*[self.ask(sent, until) for _ in range(times)])

    async def __aenter__(self) -> "Callers":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        await asyncio.sleep(0)  # aborted transports report their end in the loop's next round

    def leave(self) -> None:
        for _, writer in self.open:
            writer.transport.abort()
        self.open.clear()


def open_files(gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


async def test_ten_thousand_idle_connections_are_held_and_let_go(start_gateway):
    assert CONNECTIONS < CONNECTIONS_MAX
    assert descriptors() > CONNECTIONS, "this system allows too few open files"
    gateway = start_gateway(nowhere())
    files = open_files(gateway)
    async with Callers(gateway) as callers:
        await callers.ask_often(100, HEALTHZ, b'"ok"}')
        before = resident_kb(gateway.process.pid)
        began = time.monotonic()
        await callers.ask_often(CONNECTIONS - 100, HEALTHZ, b'"ok"}')
        took = time.monotonic() - began
        grown = resident_kb(gateway.process.pid) - before
        print(
            f"{CONNECTIONS} idle connections: {grown / 1024:.1f} MB, {took:.1f} s to open and ask"
        )
        assert grown / CONNECTIONS < IDLE_KB_MAX
        assert open_files(gateway) - files == CONNECTIONS
        began = time.monotonic()
        await callers.ask(HEALTHZ, b'"ok"}')
        assert time.monotonic() - began < ANSWERS_WITHIN_S
        # Each of them is still alive.
        for reader, writer in callers.open[::100]:
            writer.write(HEALTHZ)
            async with asyncio.timeout(10):
                await reader.readuntil(b'"ok"}')
        callers.leave()
        await eventually(lambda: open_files(gateway) == files, "all of them let go")


async def test_as_many_idle_streams_are_held_and_each_ends_whole(start_gateway, onboard, tmp_path):
    streams = min(CONNECTIONS, descriptors() // 2)
    go, waiting = asyncio.Event(), 0

    async def says_one_word(peer):
        nonlocal waiting
        await peer.send(CHUNKS, delta())
        waiting += 1
        await go.wait()
        await peer.send(delta(), totals(4, 2))

    async with deployed(says_one_word) as upstreams:
        name = new_name()
        servers = [target("only", *[each.url for each in upstreams])]
        put_on_sale(tmp_path, model(name, targets=servers, idle_timeout_s=120))
        acme = let_in(onboard, monthly_budget_nano=10**15)
        gateway = start_gateway(nowhere())
        async with Callers(gateway) as callers:
            body = json.dumps(asking(name, stream=True)).encode()
            post = (
                f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {acme.secret}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode() + body
            await callers.ask_often(100, post, b"word")
            before = resident_kb(gateway.process.pid)
            began = time.monotonic()
            await callers.ask_often(streams - 100, post, b"word")
            took = time.monotonic() - began
            grown = resident_kb(gateway.process.pid) - before
            print(f"{streams} idle streams: {grown / 1024:.1f} MB, {took:.1f} s to open")
            assert waiting == streams
            assert grown / streams < STREAM_KB_MAX
            assert gateway.settles() == []
            go.set()
            for reader, _ in callers.open:
                async with asyncio.timeout(60):
                    await reader.readuntil(b"[DONE]")
            await eventually(gateway.at_rest, "every stream settled")
            settles = gateway.settles()
            assert len(settles) == streams
            assert {(each.status, each.tokens_out) for each in settles} == {("ok", 2)}
