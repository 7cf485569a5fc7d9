"""SIGTERM under load loses nothing: what was read is answered, what was not is closed unread.

Each request has a trace id of its own, so that the callers' view and the journal's can be compared
one by one.
"""

import asyncio
import itertools
import json
import random
import signal
import socket
import time

import pytest

from tests.conftest import READY_WITHIN_S, eventually
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    TENSOR_ANSWER,
    TENSORS,
    asking,
    deployed,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    target,
    whole,
)
from tests.gateway.engine import END, event

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = 30
DRAIN_S = 1.0
IMPATIENT = f"import meterplane.gateway.__main__ as m; m.DRAIN_S = {DRAIN_S}; raise SystemExit(m.main())"  # fmt: skip  # noqa: E501
EXITS_WITHIN_S = 15.0  # of what it needs: the machine may be busy
LARGE_BYTES = 8_000_000  # more than the sockets between hold


async def stream_words(peer):
    await peer.send(CHUNKS, *[event()] * WORDS, event("", 0, "stop"), END, pause_s=0.02)


async def stream_for_ever(peer):
    await peer.send(CHUNKS)
    while True:
        await peer.send(event(), pause_s=0.02)


async def infer(peer):
    await asyncio.sleep(0.01)
    await peer.send(TENSOR_ANSWER)


class Callers:
    """Callers of one gateway, over connections that they keep."""

    def __init__(self, gateway, secret, chat, tensor):
        self.port = int(gateway.url.rpartition(":")[2])
        self.secret = secret
        self.chat = CHAT, asking(chat, stream=True, max_tokens=1000)
        self.tensor = f"/v2/models/{tensor}/infer", TENSORS
        self.numbers = itertools.count(1)
        self.answers: dict[int, bytes] = {}  # by trace id: what came

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, streams, call):
        """One request. False when the connection is over."""
        reader, writer = streams
        number = next(self.numbers)
        self.answers[number] = b""
        path, body = call
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.secret}\r\n"
            f"traceparent: 00-{number:032x}-{1:016x}-01\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + content)
            while not is_whole(self.answers[number]):
                block = await reader.read(65536)
                if not block:
                    return False
                self.answers[number] += block
        except ConnectionError:
            return False
        return b"connection: close\r\n" not in self.answers[number]

    async def keep_asking(self, call):
        """Until the gateway closes the connection and takes no other."""
        while True:
            try:
                streams = await self.connect()
            except ConnectionError:
                return
            while await self.ask(streams, call):
                pass
            streams[1].close()

    @property
    def streaming(self):
        return sum(b"word" in answer and not is_whole(answer) for answer in self.answers.values())


def is_whole(answer):
    head, end_of_head, body = answer.partition(b"\r\n\r\n")
    if b"content-length: " in head:
        return len(body) >= int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return bool(end_of_head) and body.endswith(b"0\r\n\r\n")


@pytest.fixture
def shop(start_gateway, onboard, tmp_path):
    """`shop(engine, tensors)`: a gateway in front of them, and callers who may use it."""

    def open_with(engine, tensors, **extra):
        gateway = start_gateway(nowhere(), **extra)
        chat, tensor = new_name(), new_name()
        put_on_sale(
            tmp_path,
            model(chat, "vllm", targets=[target("a", engine.url)]),
            model(tensor, "tensor", targets=[target("a", tensors.url)]),
        )
        return gateway, Callers(gateway, let_in(onboard).secret, chat, tensor)

    return open_with


def is_refused(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def ended(gateway):
    """Seconds until the process was gone, and its code."""
    began = time.monotonic()
    code = await asyncio.to_thread(gateway.process.wait, READY_WITHIN_S)
    return time.monotonic() - began, code


def check_nothing_lost(gateway, callers):
    """Admitted is answered and has one event; unanswered was never read."""
    admitted = [each.request_id for each in gateway.admits()]
    settled = {int(each.trace_id, 16): each for each in gateway.settles()}
    assert len(admitted) == len(set(admitted)) == len(settled) == len(gateway.settles())
    whole_answers = {number for number, came in callers.answers.items() if is_whole(came)}
    unread = {number for number, came in callers.answers.items() if not came}
    assert whole_answers | unread == set(callers.answers), "an answer was cut"
    assert set(settled) == whole_answers
    print(f"{len(whole_answers)} answered, {len(unread)} closed unread")
    assert not list(gateway.journal.rglob("*.open"))
    return settled


async def terminate_under_load(shop, signals, requests_before):
    async with deployed(stream_words, infer) as (engine, tensors):
        gateway, callers = shop(engine, tensors)
        working = [asyncio.create_task(callers.keep_asking(callers.chat)) for _ in range(16)]
        working += [asyncio.create_task(callers.keep_asking(callers.tensor)) for _ in range(16)]
        await eventually(
            lambda: len(callers.answers) > requests_before and callers.streaming >= 8, "load"
        )
        for _ in range(signals):
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
        assert gateway.process.poll() is None, "streams were running"
        with pytest.raises(ConnectionRefusedError):
            await callers.connect()
        seconds, code = await ended(gateway)
        await asyncio.gather(*working)
    assert code == 0
    assert seconds < WORDS * 0.02 + EXITS_WITHIN_S
    settled = check_nothing_lost(gateway, callers)
    assert {each.status for each in settled.values()} == {"ok"}
    told = sum(b"connection: close\r\n" in answer for answer in callers.answers.values())
    unread = sum(not answer for answer in callers.answers.values())
    assert told + unread >= len(working), "somebody was not told that this connection is over"


@pytest.mark.parametrize("signals", [1, 2], ids=["SIGTERM", "SIGTERM twice"])
async def test_a_terminated_gateway_under_load_loses_nothing(shop, signals):
    await terminate_under_load(shop, signals, 300)


@pytest.mark.long
@pytest.mark.parametrize("moment", range(20))
async def test_whenever_it_is_terminated_it_loses_nothing(shop, moment):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await terminate_under_load(shop, dice.choice([1, 2]), dice.randrange(20, 600))


async def test_streams_without_end_are_cut_in_time_settled_and_told(shop):
    async with deployed(stream_for_ever, infer) as (engine, tensors):
        gateway, callers = shop(engine, tensors, program=["-c", IMPATIENT])
        working = [asyncio.create_task(callers.keep_asking(callers.chat)) for _ in range(20)]
        await eventually(lambda: callers.streaming == 20, "twenty streams")
        gateway.process.send_signal(signal.SIGTERM)
        seconds, code = await ended(gateway)
        await asyncio.gather(*working)
    print(f"ended after {seconds:.2f} s of {DRAIN_S}")
    assert code == 0
    assert DRAIN_S <= seconds < DRAIN_S + EXITS_WITHIN_S
    settled = check_nothing_lost(gateway, callers)
    for number, settle in settled.items():
        came = callers.answers[number]
        assert settle.status == "cancelled"
        assert 0 < came.count(b"word") <= settle.tokens_out
        assert settle.cost_nano > 0
        assert b"[DONE]" not in came
        assert b'"code":"shutting_down"' in came


async def test_an_answer_that_is_not_read_yet_is_not_lost(shop):
    """It has left the request's task; it has not left the process."""
    numbers = b'{"outputs":[{"name":"O","shape":[1],"datatype":"FP32","data":[%b]}]}' % (
        b"1" * LARGE_BYTES
    )

    async def answer(peer):
        await peer.send(whole(numbers))

    async with deployed(stream_words, answer) as (engine, tensors):
        gateway, callers = shop(engine, tensors)
        reader, writer = await callers.connect()
        path, body = callers.tensor
        content = json.dumps(body).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {callers.secret}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        came = await reader.readexactly(1000)
        await eventually(lambda: len(gateway.settles()) == 1, "the settlement")
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        came += await asyncio.wait_for(reader.read(-1), 10)
        assert is_whole(came)
        _, code = await ended(gateway)
        assert code == 0
        writer.close()


async def test_what_is_answered_after_the_signal_says_that_the_connection_is_over(shop):
    asked, release = asyncio.Event(), asyncio.Event()

    async def answer_when_released(peer):
        asked.set()
        await release.wait()
        await peer.send(TENSOR_ANSWER)

    async with deployed(stream_words, answer_when_released) as (engine, tensors):
        gateway, callers = shop(engine, tensors)
        streams = await callers.connect()
        answer = asyncio.create_task(callers.ask(streams, callers.tensor))
        await asyncio.wait_for(asked.wait(), 10)
        gateway.process.send_signal(signal.SIGTERM)
        await eventually(lambda: is_refused(callers.port), "the signal being obeyed")
        release.set()
        assert await answer is False, "it may be asked again on this connection"
        assert b"connection: close\r\n" in callers.answers[1]
        _, code = await ended(gateway)
        streams[1].close()
    assert code == 0
    assert len(check_nothing_lost(gateway, callers)) == 1


async def test_whoever_asks_nothing_is_let_go_at_once(shop):
    """Connections that idle, and one that is in the middle of a head."""
    async with deployed(stream_words, infer) as (engine, tensors):
        gateway, callers = shop(engine, tensors)
        idle = [await callers.connect() for _ in range(5)]
        assert await callers.ask(idle[0], callers.tensor)
        idle[1][1].write(b"POST /v1/chat/completions HTTP/1.1\r\nHost:")
        await asyncio.sleep(0.1)
        gateway.process.send_signal(signal.SIGTERM)
        seconds, code = await ended(gateway)
        assert code == 0
        assert seconds < EXITS_WITHIN_S
        for reader, writer in idle:
            assert await reader.read() == b""
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await callers.connect()
