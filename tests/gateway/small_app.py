"""The gateway's own HTTP server with a small application behind it, on no network or on a real one.

The application tells what it was asked, so that two deliveries of the same bytes can be compared.
"""

import asyncio
import hashlib
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.exchange import JSON, ClientGone, Exchange
from meterplane.gateway.http1 import HttpConnection
from meterplane.kernel.errors import CallerError, WorldError

TURNS_MAX = 50  # of the loop: an answer that waits for nothing is there long before
REQUEST_ID = re.compile(rb"x-request-id: [0-9a-f-]{36}\r\n")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

Handle = Callable[[Exchange], Awaitable[None]]


async def tells(exchange: Exchange) -> None:
    """Answer with the request as it was read."""
    body = await exchange.body()
    told = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query.decode("latin-1"),
        "headers": sorted(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in exchange.headers.items()
        ),
        "bytes": len(body),
        "body": hashlib.sha256(body).hexdigest(),
    }
    exchange.answer(200, JSON, msgspec.json.encode(told))


class App:
    """Answers exchanges as `handle` says; counts what it was asked and who left."""

    def __init__(self, handle: Handle = tells) -> None:
        self.handle = handle
        self.asked: list[str] = []
        self.failures: list[BaseException] = []
        self.left = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, exchange: Exchange) -> None:
        self.asked.append(exchange.path)
        exchange.task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self.tasks.add(exchange.task)
        exchange.task.add_done_callback(self.tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self.handle(exchange)
        except ClientGone:
            self.left += 1
        except asyncio.CancelledError:
            self.left += 1
        except (CallerError, WorldError) as refused:
            exchange.answer(*errors.render(refused, exchange.surface))
        except Exception as failure:  # for the test to find
            self.failures.append(failure)
        finally:
            exchange.end()


class Wire(asyncio.Transport):
    """A transport on no network: what was written, and whether more may come."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = False
        self.ended = False  # our side is closed
        self.gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "bytes after the end"
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = self.gone = True

    abort = close

    def is_closing(self) -> bool:
        return self.gone

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Delivery:
    """What one connection answers to bytes in given pieces."""

    def __init__(self, app: App | None = None) -> None:
        self.app = app or App()
        self.connections: set[HttpConnection] = set()
        self.wire = Wire()
        self.connection = HttpConnection(self.app.start, self.connections)
        self.connection.connection_made(self.wire)

    async def settle(self) -> None:
        """Until nothing moves any more by itself."""
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
            if not self.app.tasks:
                return

    async def send(self, *pieces: bytes) -> bytes:
        """Deliver, as a kernel would: nothing while reading is paused, nothing after a close."""
        for piece in pieces:
            for _ in range(TURNS_MAX):
                if not self.wire.paused:
                    break
                await asyncio.sleep(0)
            if not self.wire.gone and not self.wire.paused:
                self.connection.data_received(piece)
            await asyncio.sleep(0)
        await self.settle()
        assert self.app.failures == []
        return self.plain

    @property
    def plain(self) -> bytes:
        """What was answered, without what differs every time."""
        return REQUEST_ID.sub(b"", self.wire.written).replace(INTERIM, b"")

    async def close(self) -> None:
        """The caller leaves."""
        self.wire.close()
        self.connection.connection_lost(None)
        await self.settle()


def statuses(answers: bytes) -> list[int]:
    """The statuses of answers that follow one another."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


class Port:
    """The server on a real port; the sweep runs when a test says so, or by itself."""

    def __init__(self, app: App, host: str, port: int) -> None:
        self.app = app
        self.address = (host, port)
        self.connections: set[HttpConnection] = set()
        self.callers: list[asyncio.StreamWriter] = []

    def sweep(self, ahead_s: float = 0.0) -> None:
        """As the server does each second, `ahead_s` from now."""
        now = time.monotonic() + ahead_s
        for each in [each for each in self.connections if each.deadline and each.deadline < now]:
            each.overdue(now)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.callers.append(writer)
        return reader, writer


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[Port]:
    """`app` on a real port."""
    loop = asyncio.get_running_loop()
    port = Port(app, "127.0.0.1", 0)
    server = await loop.create_server(
        lambda: HttpConnection(app.start, port.connections), "127.0.0.1", 0, backlog=2048
    )
    (bound,) = [each for each in server.sockets if each.family == socket.AF_INET]
    port.address = bound.getsockname()
    try:
        yield port
    finally:
        server.close()
        for caller in port.callers:
            caller.transport.abort()
        for connection in list(port.connections):
            connection.abort()
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
        assert app.failures == []
