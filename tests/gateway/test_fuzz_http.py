"""Random bytes to the server, from a seed: never a failure of ours, never two readings of one text.

`FUZZ_SEED` and `FUZZ_CASES` choose other cases; a seed that failed becomes a script of its own.
"""

import asyncio
import contextlib
import os
import random
import time

import pytest

from meterplane.gateway import routes
from meterplane.gateway.exchange import Exchange
from meterplane.kernel.errors import CallerError
from tests.gateway import test_http1
from tests.gateway.fuzzing import HTTP_WORDS, cut, mutate_bytes
from tests.gateway.small_app import App, Delivery, statuses, tells

SEED = int(os.environ.get("FUZZ_SEED", "20261125"))
CASES = int(os.environ.get("FUZZ_CASES", "50000"))
FAST_CASES = 2500
BATCH = 500

BODY = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
SCRIPTS = [
    *test_http1.WHOLE.values(),
    *(sent for _, sent in test_http1.REFUSED.values()),
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mp_live_x\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    b"POST /v2/models/identity/versions/1/infer HTTP/1.1\r\nHost: x\r\n"
    b"Inference-Header-Content-Length: 3\r\nContent-Length: 6\r\n\r\n{}\n\x00\x01\x02",
    b"DELETE /v1/files/file-1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/models/m/generate_stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
]


class Reader(App):
    """Finds the route of what it is asked, reads it whole, and remembers what it read."""

    def __init__(self) -> None:
        super().__init__(self._read)
        self.read: list[tuple[str, str, bytes]] = []

    async def _read(self, exchange: Exchange) -> None:
        with contextlib.suppress(CallerError):  # what is no route is read all the same
            routes.find(exchange.method, exchange.path)
        try:
            await tells(exchange)
        finally:
            if exchange.complete:
                self.read.append((exchange.method, exchange.path, exchange.query))


async def deliver(pieces: list[bytes]) -> Delivery:
    delivery = Delivery(Reader())
    await delivery.send(*pieces)
    return delivery


async def check(rng: random.Random, sent: bytes) -> None:
    """One stream, together and in pieces."""
    together, parted = await deliver([sent]), await deliver(cut(rng, sent) or [b""])
    for delivery in (together, parted):
        answered = statuses(delivery.plain)
        assert all(status < 500 for status in answered), answered
        await delivery.close()
        # Whoever still waits for a body ends with its connection: nothing hangs.
        assert not delivery.app.tasks
        assert delivery.app.failures == []
        assert delivery.connections == set()
    assert together.app.read == parted.app.read, "two readings of the same bytes"


async def run(seed: int, first: int, cases: int) -> None:
    for number in range(first, first + cases):
        rng = random.Random(f"{seed}/{number}")  # each case can be replayed alone
        sent = mutate_bytes(rng, rng.choice(SCRIPTS), HTTP_WORDS, rng.randrange(1, 5))
        if rng.random() < 0.3:
            sent += rng.choice(SCRIPTS)
        try:
            async with asyncio.timeout(10):
                await check(rng, sent)
        except BaseException:
            print(f"FUZZ_SEED={seed} case {number}: {sent[:600]!r}")
            raise


async def test_random_streams_break_nothing_and_are_read_in_one_way():
    print(f"FUZZ_SEED={SEED}")
    await run(SEED, 0, FAST_CASES)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_fifty_thousand_random_streams_break_nothing():
    began = time.monotonic()
    for first in range(0, CASES, BATCH):
        await run(SEED, first, min(BATCH, CASES - first))
    print(f"FUZZ_SEED={SEED}: {CASES} streams in {time.monotonic() - began:.0f} s")
