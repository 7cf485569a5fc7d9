"""Connections of the server on real ports: who is waited for, how long, and how it ends."""

import asyncio
import contextlib
import resource
import time

import pytest

from meterplane.gateway import control_proxy, http1, server
from meterplane.gateway.exchange import BODY_TIMEOUT_S
from meterplane.gateway.http1 import (
    HEAD_TIMEOUT_S,
    KEEP_ALIVE_S,
    LINGER_S,
    PIPELINED_MAX,
    SLOW_READER_S,
    HttpConnection,
)
from meterplane.kernel.limits import (
    CONNECTIONS_MAX,
    REQUEST_BODY_BYTES_MAX,
    STREAM_DURATION_S_MAX,
)
from tests.conftest import eventually
from tests.gateway.small_app import App, listening, statuses

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/a HTTP/1.1\r\nHost: x\r\n"
ANSWER_BYTES = 32 * 1024 * 1024  # more than the kernel takes of it at once
CLOSE = GET.replace(b"Host", b"Connection: close\r\nHost")


async def read_all(reader, within_s: float = 10.0) -> bytes:
    """Until the other side ends."""
    async with asyncio.timeout(within_s):
        return await reader.read(-1)


async def answer_of(reader) -> bytes:
    """One answer with a length."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await reader.readexactly(length)


async def test_a_connection_is_kept_until_it_says_that_it_ends():
    async with listening(App()) as port:
        reader, writer = await port.open()
        for _ in range(3):
            writer.write(GET)
            assert statuses(await answer_of(reader)) == [200]
        writer.write(CLOSE)
        assert b"connection: close\r\n" in await read_all(reader)
        writer.close()


async def test_an_idle_connection_is_closed_without_a_word():
    async with listening(App()) as port:
        reader, writer = await port.open()
        writer.write(GET)
        await answer_of(reader)
        port.sweep(KEEP_ALIVE_S - 5)
        assert len(port.connections) == 1
        port.sweep(KEEP_ALIVE_S + 1)
        assert await read_all(reader) == b""
        writer.close()


async def test_a_connection_that_never_asks_is_closed():
    async with listening(App()) as port:
        reader, writer = await port.open()
        await eventually(lambda: len(port.connections) == 1, "the connection")
        port.sweep(HEAD_TIMEOUT_S + 1)
        assert await read_all(reader) == b""
        writer.close()


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "kept"])
async def test_a_head_that_trickles_in_is_given_its_time_and_no_more(before):
    async with listening(App()) as port:
        reader, writer = await port.open()
        if before:
            writer.write(before)
            await answer_of(reader)
        writer.write(b"GET / HTTP/1.1\r\nHost:")
        await asyncio.sleep(0.05)
        for _ in range(3):  # what trickles in buys no time
            writer.write(b" ")
            await asyncio.sleep(0.02)
        port.sweep(HEAD_TIMEOUT_S - 2)
        assert len(port.connections) == 1
        port.sweep(HEAD_TIMEOUT_S + 1)
        assert statuses(await read_all(reader)) == [408]
        writer.close()


async def test_a_body_that_trickles_in_is_given_its_time_and_no_more():
    app = App()
    async with listening(app) as port:
        reader, writer = await port.open()
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")
        for _ in range(5):
            writer.write(b"a")
            await asyncio.sleep(0.02)
        port.sweep(BODY_TIMEOUT_S - 5)
        assert len(app.tasks) == 1
        port.sweep(BODY_TIMEOUT_S + 1)
        assert statuses(await answer_of(reader)) == [408]
        port.sweep(LINGER_S + 1)
        assert await read_all(reader) == b""
        writer.close()


async def test_an_upload_that_trickles_in_has_its_time_in_all_and_no_more(monkeypatch):
    """Each block has its minute; without a bound of all, a byte a minute went on for ever."""
    monkeypatch.setattr(control_proxy, "UPLOAD_DURATION_S_MAX", 0.3)
    heard = bytearray()

    async def listens(reader, writer):
        while block := await reader.read(65536):
            heard.extend(block)
        writer.close()

    control = await asyncio.start_server(listens, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{control.sockets[0].getsockname()[1]}"

    async def passes_on(exchange):
        reader, writer = await control_proxy.connect(url)
        try:
            await control_proxy._send(exchange, url, writer, control_proxy.Answer(reader))
        finally:
            writer.close()

    async with control, listening(App(passes_on)) as port:
        reader, writer = await port.open()
        writer.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: y\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n")
        sent = 0
        while port.app.tasks or not port.app.asked:
            writer.write(b"a")
            sent += 1
            assert sent < 200
            await asyncio.sleep(0.02)
        assert statuses(await answer_of(reader)) == [408]
        assert 5 < heard.count(b"a", heard.index(b"\r\n\r\n")) <= sent
        writer.close()


async def test_the_time_a_request_waited_for_its_turn_is_not_its_own():
    go = asyncio.Event()

    async def first_slowly(exchange):
        if exchange.path == "/first":
            await go.wait()
        exchange.answer(200, b"", b"%d" % len(await exchange.body()))

    async with listening(App(first_slowly)) as port:
        reader, writer = await port.open()
        writer.write(GET.replace(b"/v1/models", b"/first"))
        writer.write(POST + b"Content-Length: 3\r\n\r\na")
        await eventually(lambda: len(port.app.asked) == 1, "the first request")
        await asyncio.sleep(0.05)
        (connection,) = port.connections
        (waiting,) = connection._pipeline
        waiting.deadline -= BODY_TIMEOUT_S + 5  # as if the first had taken that long
        go.set()
        await answer_of(reader)
        port.sweep(BODY_TIMEOUT_S - 5)
        writer.write(b"bc")
        assert (await answer_of(reader)).endswith(b"3")
        writer.close()


async def test_a_slow_reader_is_waited_for_and_then_cut():
    wrote = 0

    async def streams(exchange):
        nonlocal wrote
        exchange.begin(200, b"")
        for _ in range(512):
            await exchange.write(b"a" * 65536, more=True)
            wrote += 1
        await exchange.write(b"", more=False)

    app = App(streams)
    async with listening(app) as port:
        _, writer = await port.open()
        writer.transport.pause_reading()
        writer.write(GET)
        await eventually(lambda: any(not each.writable for each in port.connections), "a full pipe")
        held = wrote
        await asyncio.sleep(0.1)
        assert wrote == held < 512  # it waits: nothing is piled up
        port.sweep(SLOW_READER_S - 5)
        assert len(port.connections) == 1
        port.sweep(SLOW_READER_S + 1)
        await eventually(lambda: not port.connections and app.left == 1, "the cut")
        writer.close()


async def test_a_slow_reader_who_goes_on_gets_everything():
    async def long(exchange):
        exchange.begin(200, b"")
        for _ in range(512):
            await exchange.write(b"a" * 65536, more=True)
        await exchange.write(b"", more=False)

    async with listening(App(long)) as port:
        reader, writer = await port.open()
        writer.transport.pause_reading()
        writer.write(GET.replace(b"1.1", b"1.0"))
        await eventually(lambda: any(not each.writable for each in port.connections), "a full pipe")
        writer.transport.resume_reading()
        answer = await read_all(reader, 30)
        assert len(answer.partition(b"\r\n\r\n")[2]) == 512 * 65536
        writer.close()


async def full_pipe(port, writer) -> HttpConnection:
    """A connection whose one answer is written, and waits for a caller who does not read."""
    writer.transport.pause_reading()
    writer.write(GET)
    await eventually(
        lambda: any(not each.writable and each.current is None for each in port.connections),
        "an answer that waits",
    )
    (connection,) = port.connections
    return connection


@pytest.mark.parametrize("last", [False, True], ids=["kept", "closing"])
async def test_a_slow_reader_who_goes_on_has_the_whole_answers_time(last):
    """It is billed already: thirty seconds were all there was, for sixteen megabytes too."""

    async def much(exchange):
        exchange.last = exchange._connection.closing = last
        exchange.answer(200, b"", b"a" * ANSWER_BYTES)

    async with listening(App(much)) as port:
        reader, writer = await port.open()
        connection = await full_pipe(port, writer)
        unsent = connection.transport.get_write_buffer_size()
        for _ in range(3):
            async with asyncio.timeout(10):
                while connection.transport.get_write_buffer_size() >= unsent - 65536:
                    writer.transport.resume_reading()
                    await reader.read(65536)
                    writer.transport.pause_reading()
            unsent = connection.transport.get_write_buffer_size()
            assert unsent > 1_000_000
            port.sweep(SLOW_READER_S + 1)
            assert connection in port.connections
            assert connection.deadline - time.monotonic() > SLOW_READER_S - 1
        for looks in range(2, 4):  # the kernel may have taken a last bit; since then, nothing
            await asyncio.sleep(0.1)
            port.sweep(looks * SLOW_READER_S + looks)
        await eventually(lambda: not port.connections, "the cut")
        writer.close()


async def test_a_reader_who_only_sips_is_cut_when_the_time_of_a_whole_answer_is_over():
    async def much(exchange):
        exchange.answer(200, b"", b"a" * ANSWER_BYTES)

    async with listening(App(much)) as port:
        reader, writer = await port.open()
        connection = await full_pipe(port, writer)
        unsent = connection.transport.get_write_buffer_size()
        async with asyncio.timeout(10):
            while connection.transport.get_write_buffer_size() >= unsent:
                writer.transport.resume_reading()
                await reader.read(65536)
                writer.transport.pause_reading()
        port.sweep(STREAM_DURATION_S_MAX + 1)
        await eventually(lambda: not port.connections, "the cut")
        writer.close()


async def test_whoever_never_reads_a_small_answer_is_let_go_of_too():
    """Too little waits for the pipe to count as full: such a connection was kept for ever."""

    async def some(exchange):
        exchange.answer(200, b"", b"a" * 30_000)

    app = App(some)
    async with listening(app) as port:
        _, writer = await port.open()
        writer.transport.pause_reading()
        await eventually(lambda: len(port.connections) == 1, "the connection")
        (connection,) = port.connections
        while not connection.transport.get_write_buffer_size():
            answered = len(app.asked)
            writer.write(GET)
            await eventually(lambda seen=answered: len(app.asked) > seen, "the next answer")
            await asyncio.sleep(0)
        assert connection.writable
        port.sweep(KEEP_ALIVE_S + 1)
        assert connection in port.connections
        port.sweep(LINGER_S + 1)
        await eventually(lambda: not port.connections, "the end")
        writer.close()


async def test_whoever_asks_and_never_reads_is_asked_for_no_more():
    async def much(exchange):
        exchange.answer(200, b"", b"a" * 1_000_000)

    app = App(much)
    async with listening(app) as port:
        reader, writer = await port.open()
        writer.transport.pause_reading()
        for _ in range(PIPELINED_MAX):
            writer.write(GET)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert len(app.asked) < PIPELINED_MAX // 2  # 32 MB would wait in our memory
        (connection,) = port.connections
        assert connection.transport.get_write_buffer_size() < 2_000_000
        writer.transport.resume_reading()
        for _ in range(PIPELINED_MAX):
            await answer_of(reader)
        assert len(app.asked) == PIPELINED_MAX
        writer.close()


async def test_a_refusal_is_readable_after_a_large_body_that_nobody_read():
    async def refuses(exchange):
        exchange.answer(401, b"", b"who?")

    async with listening(App(refuses)) as port:
        reader, writer = await port.open()
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % (8 * 1024 * 1024))
        for _ in range(128):  # all of it, whatever is answered
            writer.write(b"a" * 65536)
            await writer.drain()
        answer = await answer_of(reader)
        assert statuses(answer) == [401]
        assert b"connection: close\r\n" in answer
        assert await read_all(reader) == b""
        writer.close()


async def test_a_refused_head_is_readable_too():
    async with listening(App()) as port:
        reader, writer = await port.open()
        for _ in range(64):
            writer.write(b"nonsense " * 4096)
            await writer.drain()
        assert statuses(await read_all(reader)) == [400]
        writer.close()


async def test_whoever_goes_on_sending_what_was_refused_is_hung_up_on():
    async with listening(App()) as port:
        reader, writer = await port.open()
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % (REQUEST_BODY_BYTES_MAX + 1))
        assert statuses(await answer_of(reader)) == [413]
        for _ in range(10):
            writer.write(b"a" * 65536)
        port.sweep(LINGER_S + 1)
        await eventually(lambda: not port.connections, "the end")
        writer.close()


async def test_a_caller_who_leaves_is_noticed_while_a_large_body_waits():
    async def never(exchange):
        await exchange.body()
        await asyncio.Event().wait()

    app = App(never)
    async with listening(app) as port:
        _, writer = await port.open()
        writer.write(POST + b"Content-Length: 4000000\r\n\r\n" + b"a" * 4_000_000)
        await writer.drain()
        await eventually(lambda: len(app.asked) == 1, "the request")
        writer.close()
        await eventually(lambda: app.left == 1, "the caller's end")


async def test_more_connections_than_the_bound_are_told_so(monkeypatch):
    monkeypatch.setattr(http1, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(http1, "TURNED_AWAY_MAX", 2)
    app = App()
    async with listening(app) as port:
        held = [await port.open() for _ in range(3)]
        await eventually(lambda: len(port.connections) == 3, "three connections")
        turned_away = [await port.open() for _ in range(2)]
        for reader, writer in turned_away:
            writer.write(POST + b"Content-Length: 5\r\n\r\nhello")
            answer = await read_all(reader)
            assert statuses(answer) == [503]
            assert b"retry-after: 1\r\n" in answer
            assert b"connection: close\r\n" in answer
            assert b'{"error":"Too many connections' in answer
        # They may read it for a moment; whoever comes beyond them is not even told.
        reader, beyond = await port.open()
        with contextlib.suppress(ConnectionError):
            beyond.write(GET)
            assert await read_all(reader) == b""
        for each in (beyond, *(other for _, other in turned_away)):
            each.close()
        await eventually(lambda: len(port.connections) == 3, "those turned away leaving")
        for reader, writer in held:
            writer.write(GET)
            assert statuses(await answer_of(reader)) == [200]
        assert len(app.asked) == 3
        held[0][1].close()
        await eventually(lambda: len(port.connections) == 2, "one leaving")
        reader, again = await port.open()
        again.write(GET)
        assert statuses(await answer_of(reader)) == [200]
        for each in (again, *(other for _, other in held)):
            each.close()


async def test_whoever_is_turned_away_and_says_nothing_is_not_kept(monkeypatch):
    monkeypatch.setattr(http1, "CONNECTIONS_MAX", 0)
    async with listening(App()) as port:
        reader, writer = await port.open()
        await eventually(lambda: len(port.connections) == 1, "the connection")
        port.sweep(LINGER_S + 1)
        assert await read_all(reader) == b""
        writer.close()


def test_all_connections_have_their_descriptors():
    """A connection and its upstream are two; those turned away come on top."""
    assert http1.TURNED_AWAY_MAX < 1024
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    server.allow_descriptors()
    raised, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raised >= min(hard, max(soft, 2 * CONNECTIONS_MAX + http1.TURNED_AWAY_MAX))
