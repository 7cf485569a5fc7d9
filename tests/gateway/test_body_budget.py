"""All large bodies of a worker together: what is held, who is refused, and that all is given back.

The bound is made small, so that a few bodies fill it; connections and bytes are real.
"""

import asyncio
import json
import random
import zlib

import pytest

from meterplane.gateway.body_budget import BODIES, BodyBudget
from meterplane.gateway.exchange import BODY_TIMEOUT_S
from meterplane.kernel.limits import (
    BODIES_BYTES_MAX,
    BODY_SMALL_BYTES_MAX,
    REQUEST_BODY_BYTES_MAX,
)
from tests.conftest import eventually
from tests.gateway.small_app import App, Delivery, listening, statuses

LARGE = 300_000
ROOM = 3 * LARGE
OPENAI, KSERVE = b"/v1/chat/completions", b"/v2/models/m/infer"
TOLD = "The gateway holds too many large requests; try again."


def head(size: int, path: bytes = OPENAI, more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (path, more, size)


def chunked(body: bytes, path: bytes = OPENAI) -> bytes:
    begun = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    return begun + b"%x\r\n%b\r\n" % (len(body), body)


async def answer_of(reader) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    async with asyncio.timeout(10):
        begun = await reader.readuntil(b"\r\n\r\n")
        length = int(begun.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return begun, await reader.readexactly(length)


class Holding:
    """Reads each body and answers when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.read = 0

    async def __call__(self, exchange) -> None:
        body = await exchange.body()
        self.read += 1
        if len(body) > BODY_SMALL_BYTES_MAX:
            await self.go.wait()
        exchange.answer(200, b"", b"%d" % len(body))


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """Little of it; all is given back when a test is over."""
    assert BODIES.bytes_held == 0
    monkeypatch.setattr(BODIES, "bytes_max", ROOM)
    yield
    assert BODIES.bytes_held == 0


async def fill(port, holding) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    callers = [await port.open() for _ in range(ROOM // LARGE)]
    for _, writer in callers:
        writer.write(head(LARGE) + b"a" * LARGE)
    await eventually(lambda: holding.read == len(callers), "the bodies")
    assert BODIES.bytes_held == ROOM
    return callers


def test_the_largest_body_fits_many_times():
    assert BodyBudget().bytes_max == BODIES_BYTES_MAX >= 32 * REQUEST_BODY_BYTES_MAX


def test_a_refusal_takes_nothing_and_what_was_taken_is_room_again():
    budget = BodyBudget(10)
    assert budget.take(6)
    assert not budget.has_room(5)
    assert not budget.take(5)
    assert budget.bytes_held == 6
    assert budget.has_room(4)
    assert budget.take(4)
    budget.give_back(10)
    assert (budget.bytes_held, budget.take(10)) == (0, True)


@pytest.mark.parametrize("framed", ["length", "chunks"])
@pytest.mark.parametrize("path", [OPENAI, KSERVE], ids=["openai", "kserve"])
async def test_a_large_request_beyond_the_bound_is_told_to_come_again(path, framed):
    holding = Holding()
    async with listening(App(holding)) as port:
        callers = await fill(port, holding)
        reader, writer = await port.open()
        body = b"b" * LARGE
        writer.write(head(LARGE, path) + body if framed == "length" else chunked(body, path))
        begun, told = await answer_of(reader)
        assert statuses(begun) == [503]
        assert b"retry-after: 1\r\n" in begun
        error = json.loads(told)["error"]
        assert (error if path is KSERVE else error["message"]) == TOLD
        assert path is KSERVE or error["code"] == "too_many_large_requests"
        assert BODIES.bytes_held == ROOM
        assert holding.read == len(callers)
        holding.go.set()
        for each, _ in callers:
            assert (await answer_of(each))[1] == b"%d" % LARGE
        assert BODIES.bytes_held == 0
        again, writer = await port.open()
        writer.write(head(LARGE, path) + body)
        assert statuses((await answer_of(again))[0]) == [200]


async def test_small_requests_are_served_however_many_large_ones_there_are():
    holding = Holding()
    async with listening(App(holding)) as port:
        callers = await fill(port, holding)
        for size in (0, 1, BODY_SMALL_BYTES_MAX):
            reader, writer = await port.open()
            writer.write(head(size) + b"a" * size)
            assert (await answer_of(reader))[1] == b"%d" % size
        holding.go.set()
        for each, _ in callers:
            await answer_of(each)


async def test_nobody_is_invited_to_send_what_has_no_room():
    holding = Holding()
    async with listening(App(holding)) as port:
        await fill(port, holding)
        reader, writer = await port.open()
        writer.write(head(LARGE, more=b"Expect: 100-continue\r\n"))
        assert statuses((await answer_of(reader))[0]) == [503]
    await eventually(lambda: BODIES.bytes_held == 0, "the end of those who left")


async def test_what_is_only_declared_takes_no_room_from_others():
    holding = Holding()
    async with listening(App(holding)) as port:
        for _ in range(10):
            _, writer = await port.open()
            writer.write(head(LARGE) + b"a")
        await eventually(lambda: len(port.app.asked) == 10, "the heads")
        assert BODIES.bytes_held == 0
        reader, writer = await port.open()
        writer.write(head(LARGE) + b"a" * LARGE)
        holding.go.set()
        assert statuses((await answer_of(reader))[0]) == [200]


async def test_a_compressed_body_counts_as_what_it_becomes():
    holding = Holding()
    async with listening(App(holding)) as port:
        for plain, status in ((b"a" * ROOM, 200), (b"a" * (ROOM + 1), 503)):
            holding.go.set()
            body = zlib.compress(plain)
            assert len(body) < BODY_SMALL_BYTES_MAX
            reader, writer = await port.open()
            writer.write(head(len(body), more=b"Content-Encoding: deflate\r\n") + body)
            assert statuses((await answer_of(reader))[0]) == [status]
            assert BODIES.bytes_held == 0


ENDS = ("leaves", "leaves early", "too late", "broken", "too large", "refused unread")


@pytest.mark.parametrize("end", ENDS)
async def test_however_a_request_ends_its_room_is_given_back(end):
    refuse = end == "refused unread"
    holding = Holding()

    async def handle(exchange):
        if refuse:
            await eventually(lambda: BODIES.bytes_held > 0, "some of the body")
            exchange.answer(401, b"", b"who?")
        else:
            await holding(exchange)

    async with listening(App(handle)) as port:
        reader, writer = await port.open()
        if end == "leaves":
            writer.write(head(LARGE) + b"a" * LARGE)
        elif end in ("broken", "too large"):
            writer.write(chunked(b"a" * LARGE))
        else:
            writer.write(head(LARGE) + b"a" * (LARGE - 1))
        if not refuse:
            await eventually(lambda: BODIES.bytes_held >= LARGE - 1, "the body")
        if end.startswith("leaves"):
            writer.close()
        elif end == "too late":
            port.sweep(BODY_TIMEOUT_S + 1)
            assert statuses((await answer_of(reader))[0]) == [408]
        elif end == "broken":
            writer.write(b"nonsense\r\n")
            assert statuses((await answer_of(reader))[0]) == [400]
        elif end == "too large":
            BODIES.bytes_max = BODIES_BYTES_MAX
            writer.write(b"%x\r\n" % REQUEST_BODY_BYTES_MAX + b"a" * REQUEST_BODY_BYTES_MAX)
            assert statuses((await answer_of(reader))[0]) == [413]
        else:
            assert statuses((await answer_of(reader))[0]) == [401]
        await eventually(lambda: BODIES.bytes_held == 0, "the room")


async def test_requests_in_a_row_give_back_what_they_held_too():
    holding = Holding()
    whole = head(100_000) + b"a" * 100_000
    delivery = Delivery(App(holding))
    await delivery.send(whole + whole + b"POST /v1/a HTTP/1.1\r\nHost: x\r\n")
    assert BODIES.bytes_held == 200_000
    await delivery.close()
    assert BODIES.bytes_held == 0
    delivery = Delivery(App(holding))
    await delivery.send(whole + whole)
    holding.go.set()
    await delivery.settle()
    assert statuses(delivery.plain) == [200, 200]


async def test_random_ends_of_random_bodies_leave_nothing_behind():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    holding = Holding()
    holding.go.set()
    seen = set()
    for _ in range(300):
        delivery = Delivery(App(holding))
        sent = b""
        for _ in range(rng.randrange(1, 4)):
            size = rng.choice([10, 70_000, 150_000, 400_000, ROOM + 1])
            body = rng.randbytes(size)
            sent += head(size) + body if rng.random() < 0.5 else chunked(body) + b"0\r\n\r\n"
        sent = sent[: rng.randrange(len(sent) + 1)] if rng.random() < 0.5 else sent
        step = rng.choice([10_000, 65_536, 262_144])
        seen.update(statuses(await delivery.send(*_pieces(sent, step))))
        assert BODIES.bytes_held <= ROOM
        await delivery.close()
        assert BODIES.bytes_held == 0
    assert seen >= {200, 503}


def _pieces(sent: bytes, step: int) -> list[bytes]:
    return [sent[at : at + step] for at in range(0, len(sent), step)]
