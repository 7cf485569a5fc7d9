"""Fleets that are closed with their test, and the small parts its scripts are made of."""

from typing import Any

from meterplane.triton.fleet import Fleet, ServerState
from meterplane.triton.pool import Pool
from meterplane.triton.request import Request
from tests.conftest import free_port
from tests.triton.scripted import Peer

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"

WAITS = {"first_byte_timeout_s": 5.0, "idle_timeout_s": 5.0}


def piece(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def dead_url() -> str:
    """Where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


class Fleets:
    """Makes fleets for one test."""

    def __init__(self) -> None:
        self.made: list[Fleet] = []

    def __call__(self, *urls: str, **options: Any) -> Fleet:
        self.made.append(Fleet(list(urls), **options))
        return self.made[-1]


async def forever(peer: Peer, answer: bytes = OK) -> None:
    """The same answer to every request."""
    while await peer.request():
        await peer.send(answer)


async def ask(pool: Pool, path: str = "/", body: bytes = b"", **waits: float) -> Any:
    """A whole answer."""
    return await pool.fetch(Request("POST", path, body), **(WAITS | waits))


async def open_stream(pool: Pool, path: str = "/", **waits: float) -> Any:
    """An answer's head; its body is still to come."""
    return await pool.send(Request("POST", path, b"{}"), **(WAITS | waits))


def state(fleet: Fleet, url: str) -> ServerState:
    """One server of a snapshot."""
    (found,) = [server for server in fleet.snapshot() if server.url == url]
    return found
