"""However a network cuts an answer, and whatever a server makes of it: the same, or a clean end.

Scripts of bytes into the connection itself, without a network between.
"""

import asyncio
import random
from itertools import pairwise

import pytest

from meterplane.kernel.errors import WorldError
from meterplane.triton.connection import HEAD, WHOLE, Connection
from meterplane.triton.server import Server
from meterplane.triton.upstream import Upstream

CASES = 10_000
BODY_BYTES_MAX = 1 << 20

BODY = b'data: {"text_output":"a\\r\\n"}\n\ndata: {"text_output":"\xc3\xa9"}\n\n'


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    return head + framed + b"0\r\nTrailer: no header\r\n\r\n"


SCRIPTS = [
    b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    chunked(BODY, 7),
    chunked(BODY, 1000),
    b"HTTP/1.1 100 Continue\r\nx-a: interim\r\n\r\n" + chunked(BODY, 20),
    b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\n" + BODY,  # ends with its connection
]


class Wire(asyncio.Transport):
    """The other end of nothing: remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def random_pieces(data: bytes, dice: random.Random) -> list[bytes]:
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 1, 2, 5, 40])))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


async def answer(pieces: list[bytes], dice: random.Random) -> tuple[int, dict[bytes, bytes], bytes]:
    """What a reader gets from a server that writes `pieces` and closes; whole or as a stream."""
    loop = asyncio.get_running_loop()
    connection, wire = Connection(loop), Wire()
    connection.connection_made(wire)
    server = Server("http://nowhere")
    server.in_flight = 1
    want = dice.choice([HEAD, WHOLE])

    async def read() -> bytes:
        await connection.ask((b"",), want, 5, 5, BODY_BYTES_MAX)
        if want == WHOLE:
            return connection.take()
        return await Upstream(connection, server, 0).read()

    reading = loop.create_task(read())
    await asyncio.sleep(0)
    for piece in pieces:
        if not wire.aborted:
            connection.data_received(piece)
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    connection.connection_lost(None)
    body = await reading
    return connection.status, connection.headers, body


@pytest.fixture
def dice() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


async def test_ten_thousand_cuts_give_the_same_answer(dice):
    for _ in range(CASES):
        script = dice.choice(SCRIPTS)
        status, headers, body = await answer(random_pieces(script, dice), dice)
        assert (status, headers[b"x-a"], body) == (200, b"b", BODY)
        assert b"trailer" not in headers


async def test_ten_thousand_damaged_answers_end_cleanly(dice):
    """Each is read, or is the world's failure: nothing else is raised, nobody waits for ever."""
    failures = 0
    for _ in range(CASES):
        script = bytearray(dice.choice(SCRIPTS))
        for _ in range(dice.choice([1, 1, 3, 10])):
            at = dice.randrange(len(script) + 1)  # it may be empty by now
            match dice.randrange(3):
                case 0:
                    script[at : at + 1] = dice.randbytes(1)
                case 1:
                    del script[at : at + dice.randrange(1, 20)]
                case 2:
                    script[at:at] = dice.randbytes(dice.randrange(1, 5))
        try:
            async with asyncio.timeout(20):
                await answer(random_pieces(bytes(script), dice), dice)
        except WorldError:
            failures += 1
    assert failures > CASES // 10  # else this test damages nothing
