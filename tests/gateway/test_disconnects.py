"""Callers who leave at any moment: one usage event for what was admitted, the engine stopped at
once, delivered <= billed <= generated, and not a nano of the budget lost or held.

A request is known by its trace id, which the caller chooses, the engine is told and the usage event
keeps. The engine knows what it generated and when it was cut; the caller what arrived and when they
left.
"""

import asyncio
import json
import random
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import pytest
import redis

from tests import environment
from tests.conftest import wait_until
from tests.gateway.conftest import as_if_new
from tests.gateway.deployments import (
    ALIVE,
    CHAT,
    CHUNKS,
    IN_NANO,
    OUT_NANO,
    TENSOR_ANSWER,
    TENSOR_NANO,
    asking,
    delta,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    target,
    totals,
)
from tests.gateway.engine import END, event
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

BUDGET_NANO = 10**12
AT_ONCE = 48
STOPPED_WITHIN_S = 1.0  # the promise, which ten thousand callers hold us to
BUSY_S = 9.0  # what a machine may add that does other things beside
WORDS_MAX = 30
# Three prompts are three requests to the engine, for one caller and one event.
KINDS = ("vllm", "vllm plain", "vllm generate", "vllm prompts", "openai", "tensor")
PATIENCE_S = 0.3  # of a caller whose engine has fallen silent
MOMENTS = ("head", "body", "before", "bytes", "words", "end")
LARGE_BYTES = 300_000  # its last part makes it more than is kept of a body nobody has asked for


# Its blocks of budget are handed over as their caller leaves, by the waiting of psycopg's pool.
LAST_MOMENT = """
from contextlib import suppress
from psycopg_pool.pool_async import WaitingClient
from meterplane.gateway import __main__, budgets, exchange

handed = WaitingClient()
take, leave = budgets.Budgets.take, exchange.Exchange.leave

async def take_and_wait(self, *arguments):
    granted = await take(self, *arguments)
    print("a block is waited for", flush=True)
    await handed.wait(30.0)
    return granted

def hand_over_and_leave(self):
    with suppress(StopIteration):
        handed.set("a connection").send(None)
    leave(self)

budgets.Budgets.take = take_and_wait
exchange.Exchange.leave = hand_over_and_leave
raise SystemExit(__main__.main())
"""


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


def number_of(trace_id):
    return int(trace_id, 16)


@dataclass
class Engine:
    """Words at a pace, silence after some; or a tensor after a while."""

    seed: int
    silent: bool = False  # every answer, from the beginning
    generated: dict[int, int] = field(default_factory=dict)
    stopped_at: dict[int, float] = field(default_factory=dict)
    url: str = ""

    async def script(self, peer):
        while request := await peer.request():
            if request.startswith(b"GET"):
                await peer.send(ALIVE)
                continue
            trace = request.lower().partition(b"traceparent: 00-")[2][:32]
            if not await self.answer(peer, number_of(trace), request.split(b" ", 2)[1]):
                return

    async def answer(self, peer, number, path):
        """False when the gateway left before the end."""
        dice = random.Random(f"{self.seed} engine {number} {self.generated.get(number)}")
        words = dice.randrange(1, WORDS_MAX)
        silent_after = dice.randrange(words) if dice.random() < 0.3 else words
        if self.silent:
            silent_after = 0
        self.generated.setdefault(number, 0)
        leaving = asyncio.create_task(peer.gone())
        try:
            await asyncio.wait([leaving], timeout=dice.uniform(0, 0.01))
            if not path.endswith(b"/infer"):
                peer.write(CHUNKS)
            for _ in range(silent_after):
                if leaving.done():
                    break
                self.generated[number] += 1
                peer.write(self.piece(path))
                await asyncio.wait([leaving], timeout=dice.uniform(0, 0.006))
            if silent_after < words:
                await leaving
            if leaving.done():
                self.stopped_at[number] = time.monotonic()
                return False
        finally:
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
        peer.write(self.end(path, words))
        return True

    @staticmethod
    def piece(path):
        if path.endswith(b"/infer"):
            return b""
        return delta() if path.startswith(b"/v1/") else event()

    @staticmethod
    def end(path, words):
        if path.endswith(b"/infer"):
            return TENSOR_ANSWER
        return totals(4, words) if path.startswith(b"/v1/") else event("", 0, "stop") + END


@dataclass
class Caller:
    """One request, left at a moment that the seed decides."""

    number: int
    secret: str
    port: int
    names: dict[str, str]
    dice: random.Random
    moment: str = ""
    received: bytes = b""
    left_at: float = 0.0
    kind: str = ""

    def request(self):
        """Its head and body."""
        name = self.names[self.kind.partition(" ")[0]]
        path, body = CHAT, asking(name, stream="plain" not in self.kind, max_tokens=100)
        if self.kind == "tensor":
            path = f"/v2/models/{name}/infer"
            shape = [self.dice.choice([1, 1, 1, 20_000])]
            body = {
                "inputs": [
                    {"name": "I", "shape": shape, "datatype": "FP32", "data": [1] * shape[0]}
                ]
            }
        elif self.kind == "vllm generate":
            path = f"/v2/models/{name}/generate_stream"
            body = {"text_input": "x", "stream": True, "sampling_parameters": '{"max_tokens":100}'}
        elif self.kind == "vllm prompts":
            path = "/v1/completions"
            body = {"model": name, "prompt": ["x", "y", "z"], "stream": True, "max_tokens": 100}
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self.secret}\r\n"
            f"traceparent: 00-{self.number:032x}-{1:016x}-01\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode(), content

    async def visit(self):
        dice = self.dice
        self.moment = dice.choice(MOMENTS)
        self.kind = dice.choice(KINDS)
        head, content = self.request()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if self.moment == "head":
                writer.write(head[: dice.randrange(len(head))])
            elif self.moment == "body":
                writer.write(head + content[: dice.randrange(len(content))])
            else:
                writer.write(head + content)
                await writer.drain()
                with suppress(TimeoutError):
                    await self.read(reader)
        finally:
            await self.leave(reader, writer)

    async def read(self, reader):
        if self.moment == "before":
            await asyncio.sleep(self.dice.uniform(0, 0.03))
            return
        bytes_wanted = self.dice.randrange(1, 4000) if self.moment == "bytes" else 1 << 30
        words_wanted = self.dice.randrange(1, 12) if self.moment == "words" else 1 << 30
        async with asyncio.timeout(None) as waiting:
            while len(self.received) < bytes_wanted and self.words < words_wanted:
                waiting.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
                block = await reader.read(min(4096, bytes_wanted - len(self.received)))
                self.received += block
                if not block or self.is_whole:
                    return

    async def leave(self, reader, writer):
        """By a reset, by closing, or by closing one side: a caller that has left all the same."""
        self.left_at = time.monotonic()
        way = self.dice.choice(["reset", "close", "half"])
        if way == "reset":
            writer.transport.abort()
        elif way == "half":
            with suppress(OSError):
                writer.write_eof()
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(20):
                    while block := await reader.read(65536):
                        self.received += block
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    @property
    def words(self):
        return self.received.count(b"word")

    @property
    def is_whole(self):
        """The end of an answer of its kind has arrived."""
        head, its_end, body = self.received.partition(b"\r\n\r\n")
        if not its_end:
            return False  # it may be cut anywhere, in the middle of a number, too
        if b"content-length: " in head:
            return len(body) >= int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        return body.endswith(b"0\r\n\r\n")  # so may a head end, with the money that is left

    @property
    def holds(self):
        """Tokens it has, or requests it has the answer of."""
        if self.kind == "tensor":
            return int(self.is_whole and b" 200 " in self.received[:20])
        if self.kind == "vllm plain" and not self.is_whole:
            return 0
        return self.words


@pytest.fixture
def shop(gateway, onboard, tmp_path):
    """`shop(engine)`: a tenant with a budget, and the names of its models by kind."""

    def open_with(engine):
        names = {kind: new_name() for kind in ("vllm", "openai", "tensor")}
        arms = [target("a", engine.url)]
        put_on_sale(tmp_path, *(model(name, kind, targets=arms) for kind, name in names.items()))
        return let_in(onboard, monthly_budget_nano=BUDGET_NANO), names

    return open_with


def check_budget(tenant, settled):
    """What is left is the limit less what was billed, to the nano, and nothing is held."""
    with redis.Redis.from_url(environment.redis_url("admission")) as connection:

        def held():
            return list(connection.scan_iter(f"mp:{{{tenant.id}}}:reservation:*"))

        wait_until(lambda: not held(), "every reservation given back")
        pools = connection.scan_iter(f"mp:{{{tenant.id}}}:limit:*:spend:*")
        pooled = sum(int(connection.hget(pool, "left") or 0) for pool in pools)
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT granted_nano FROM budget_window WHERE tenant_id = %s", (tenant.id,)
        ).fetchone()
    granted = row[0] if row else 0
    billed = sum(each.cost_nano for each in settled)
    assert BUDGET_NANO - granted + pooled == BUDGET_NANO - billed


def check_event(settle, caller, engine):
    """Delivered <= billed <= generated, and the price of what was billed."""
    generated = engine.generated.get(caller.number, 0)
    if caller.kind == "tensor":
        assert caller.holds <= settle.requests <= 1
        assert settle.cost_nano == settle.requests * TENSOR_NANO
        return
    assert caller.holds <= settle.tokens_out <= generated, (caller, settle)
    assert settle.cost_nano == settle.tokens_in * IN_NANO + settle.tokens_out * OUT_NANO
    if caller.is_whole and b" 200 " in caller.received[:20]:
        assert settle.status == "ok"


async def visits(gateway, shop, count, seed, stopped_within_s):
    engine = Engine(seed)
    async with scripted(engine.script) as server:
        engine.url = server.url
        tenant, names = shop(engine)
        port = int(gateway.url.rpartition(":")[2])
        callers = [
            Caller(number, tenant.secret, port, names, random.Random(f"{seed} caller {number}"))
            for number in range(1, count + 1)
        ]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(caller):
            async with gate:
                await caller.visit()

        await asyncio.gather(*map(one, callers))
        await asyncio.to_thread(wait_until, gateway.at_rest, "every request settled")
    settled, admits = gateway.settles(), gateway.admits()
    assert len(settled) == len(admits) == len({each.request_id for each in settled})
    delays = [
        engine.stopped_at[each.number] - each.left_at
        for each in callers
        if each.number in engine.stopped_at
    ]
    by_status = dict.fromkeys(("ok", "cancelled", "error", "interrupted"), 0)
    for settle in settled:
        by_status[settle.status] += 1
        check_event(settle, callers[number_of(settle.trace_id) - 1], engine)
    print(
        f"n {count} seed {seed}: admitted {len(admits)}, {by_status}, engines stopped"
        f" {len(delays)}, worst after {max(delays) * 1000:.0f} ms"
    )
    assert max(delays) < stopped_within_s
    assert set(engine.generated) <= {number_of(settle.trace_id) for settle in settled}
    assert by_status["error"] == by_status["interrupted"] == 0
    assert by_status["ok"] > count // 20
    assert by_status["cancelled"] > count // 4
    check_budget(tenant, settled)


async def test_callers_who_leave_at_any_moment_pay_for_what_was_made_and_stop_the_engine(
    gateway, shop
):
    seed = random.SystemRandom().randrange(1 << 32)
    await visits(gateway, shop, 600, seed, STOPPED_WITHIN_S + BUSY_S)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_ten_thousand_callers_who_leave_at_any_moment(gateway, shop):
    seed = random.SystemRandom().randrange(1 << 32)
    await visits(gateway, shop, 10_000, seed, STOPPED_WITHIN_S)


async def test_a_caller_who_leaves_after_a_large_body_stops_the_engine_too(gateway, shop):
    """A body that came faster than it was asked for had made the gateway deaf to its end."""
    engine = Engine(1, silent=True)
    async with scripted(engine.script) as server:
        engine.url = server.url
        tenant, names = shop(engine)
        body = b'{"inputs":[{"name":"I","shape":[%d],"datatype":"FP32","data":[%b]}]}' % (
            LARGE_BYTES // 2,
            b"1," * (LARGE_BYTES // 2 - 1) + b"1",
        )
        head = (
            f"POST /v2/models/{names['tensor']}/infer HTTP/1.1\r\nHost: gateway\r\n"
            f"Authorization: Bearer {tenant.secret}\r\ntraceparent: 00-{1:032x}-{1:016x}-01\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        port = int(gateway.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as caller:
            await asyncio.to_thread(caller.sendall, head.encode() + body)
            await asyncio.to_thread(wait_until, lambda: 1 in engine.generated, "the engine asked")
        stopped = "the engine stopped"
        await asyncio.to_thread(wait_until, lambda: 1 in engine.stopped_at, stopped, 10)
    await asyncio.to_thread(wait_until, lambda: len(gateway.settles()) == 1, "the settlement")
    (settle,) = gateway.settles()
    assert (settle.status, settle.cost_nano) == ("cancelled", 0)


async def test_a_caller_who_leaves_as_a_library_gets_what_it_waits_for_asks_no_engine(
    start_gateway, onboard, tmp_path
):
    """Python 3.11's `wait_for` takes the cancellation for its own, and there is only one."""
    engine = Engine(1, silent=True)
    async with scripted(engine.script) as server:
        gateway = start_gateway(nowhere(), program=["-c", LAST_MOMENT])
        name = new_name()
        put_on_sale(tmp_path, model(name, "vllm", targets=[target("a", server.url)]))
        tenant = let_in(onboard, monthly_budget_nano=BUDGET_NANO)
        caller = Caller(1, tenant.secret, 0, {"vllm": name}, random.Random(1), kind="vllm")
        port = int(gateway.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"".join(caller.request()))
            waiting = "a block is waited for"
            await asyncio.to_thread(wait_until, lambda: waiting in gateway.log.read_text(), waiting)
        gone = '"code":"client_gone"'
        await asyncio.to_thread(wait_until, lambda: gone in gateway.log.read_text(), gone)
    assert engine.generated == {}
    assert gateway.admits() == []
    check_budget(tenant, [])
