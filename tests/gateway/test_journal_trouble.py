"""A real gateway whose journal's disk fails, fills up, and comes back: nothing served is unbilled.

The callers count: who holds a whole answer has one event, who was refused has none, and nobody has
two. Instants are printed; what is asserted of them is loose, for a machine under load is slow.
"""

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx2 as httpx
import pytest

from meterplane.contracts.reservations import mark_of
from meterplane.contracts.usage import Admit, Settle
from meterplane.journal.directory import claim, list_directories
from meterplane.journal.reader import frames_of, frames_under, read_segment
from meterplane.journal.recovery import recover
from meterplane.journal.segment import list_segments
from tests.conftest import free_port, wait_until
from tests.gateway import sick_disk
from tests.gateway.engine import END, HEAD, Engine, event
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
WORDS = 60
PROGRAM = sick_disk.program("meterplane.gateway.__main__")


@pytest.fixture
async def engine():
    """Streams of sixty words, one every 20 ms; whole answers of one word."""
    made = Engine()

    async def behave(peer):
        await peer.send(HEAD, *[event()] * WORDS, event("", 0, "stop"), END, pause_s=0.02)

    made.behave = behave
    async with scripted(made.script) as server:
        yield server


class Callers:
    """Streams and the refused, as those who call see them."""

    def __init__(self, gateway, secret: str) -> None:
        self.client = httpx.AsyncClient(
            base_url=gateway.url, headers={"Authorization": f"Bearer {secret}"}, timeout=60
        )
        self.whole: set[UUID] = set()
        self.words: dict[UUID, int] = {}
        self.refusals: list[httpx.Response] = []
        self.refused_at = 0.0

    async def stream(self) -> bool:
        """Read one to its end; True if it was whole."""
        async with self.client.stream(
            "POST", "/v1/chat/completions", json=CHAT | {"stream": True}
        ) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self.refusals.append(answer)
                self.refused_at = self.refused_at or time.monotonic()
                return False
            request_id = UUID(answer.headers["x-request-id"])
            self.words[request_id] = 0
            async for line in answer.aiter_lines():
                self.words[request_id] += '"word ' in line
                if line == "data: [DONE]":
                    self.whole.add(request_id)
            return request_id in self.whole

    async def until_refused(self) -> None:
        while not self.refusals:
            await asyncio.wait({asyncio.ensure_future(self.stream())}, timeout=0.02)

    async def until_served(self) -> None:
        async with asyncio.timeout(60):
            while not await self.stream():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def events_of(gateway) -> dict[UUID, Settle]:
    """By request, as ingest would have them after the shipper; copies must be the same."""
    for home in list_directories(gateway.journal):
        lock = claim(home)
        assert lock is not None
        recover(home)
        os.close(lock)
    events: dict[UUID, Settle] = {}
    frames = list(frames_under(gateway.journal))
    for frame in frames:
        if isinstance(frame, Settle):
            assert events.setdefault(frame.request_id, frame) == frame
    assert {frame.request_id for frame in frames if isinstance(frame, Admit)} == events.keys()
    return events


async def ended(gateway) -> None:
    gateway.process.terminate()
    await asyncio.to_thread(gateway.process.wait, 40)


@pytest.mark.parametrize("what", [f"EIO {sick_disk.ALL}", "EIO sync"])
async def test_a_gateway_goes_on_when_its_disk_does_and_all_that_ran_is_billed(
    start_gateway, engine, acme, tmp_path, what
):
    file, port = tmp_path / "sick", free_port()
    gateway = start_gateway(
        engine.url,
        program=PROGRAM,
        TEST_SICK_DISK=str(file),
        GATEWAY_METRICS_PORT=str(port),
    )
    callers = Callers(gateway, acme.secret)
    running = [asyncio.ensure_future(callers.stream()) for _ in range(4)]
    while len(callers.words) < 4 or not all(callers.words.values()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with sick_disk.sick(file, what):
        failed_at = time.monotonic()
        await callers.until_refused()
        print(f"admitted for {(callers.refused_at - failed_at) * 1000:.0f} ms more")
        refused = callers.refusals[0]
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "journal_unavailable"
        assert int(refused.headers["retry-after"]) > 0
        ready = (await callers.client.get("/readyz")).json()
        assert "journal_unavailable" in ready["missing"]
        await asyncio.sleep(0.5)
        assert not any(each.done() for each in running), "an end left that nobody wrote down"
    well_at = time.monotonic()
    await callers.until_served()
    print(f"admitted again after {time.monotonic() - well_at:.2f} s")
    assert await asyncio.gather(*running) == [True] * 4
    told = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")
    assert "\nmeterplane_gateway_journal_failures_total 1\n" in told.text
    assert "\nmeterplane_gateway_journal_healthy 1\n" in told.text
    await callers.client.aclose()
    await ended(gateway)

    events = events_of(gateway)
    homes = list_directories(gateway.journal)
    assert len(homes) == 2
    for home in homes:  # whoever recovers one gives back what bears its mark, and nothing else
        for segment in list_segments(home):
            for frame in frames_of(read_segment(segment.path)):
                if isinstance(frame, Admit):
                    assert frame.reservation.partition(":")[2].startswith(mark_of(home))
    assert callers.whole <= events.keys()
    for request_id in callers.whole:
        assert events[request_id].status == "ok"
        assert events[request_id].tokens_out == callers.words[request_id] == WORDS
    for request_id, event_ in events.items():
        assert event_.tokens_out >= callers.words.get(request_id, 0), "served and not billed"
    assert not {UUID(each.headers["x-request-id"]) for each in callers.refusals} & events.keys()


async def test_a_gateway_killed_while_its_disk_is_sick_bills_no_more_than_was_delivered(
    start_gateway, engine, acme, tmp_path
):
    file = tmp_path / "sick"
    gateway = start_gateway(engine.url, program=PROGRAM, TEST_SICK_DISK=str(file))
    callers = Callers(gateway, acme.secret)
    running = [asyncio.ensure_future(callers.stream()) for _ in range(4)]
    while len(callers.words) < 4 or not all(callers.words.values()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with sick_disk.sick(file, f"EIO {sick_disk.ALL}"):
        await asyncio.sleep(0.3)
        gateway.process.kill()
        await asyncio.to_thread(gateway.process.wait, 30)
    await asyncio.gather(*running, return_exceptions=True)
    await callers.client.aclose()
    assert not callers.whole
    events = events_of(gateway)
    assert events.keys() == callers.words.keys()
    for request_id, words in callers.words.items():
        assert events[request_id].status == "interrupted"
        # What is recorded leaves at once after it: at most one word is on its way.
        assert words <= events[request_id].tokens_out <= words + 1


@contextmanager
def files_end_at(pid: int, size_bytes: int) -> Iterator[None]:
    """No file of that process grows beyond it meanwhile: the kernel refuses as if it was full."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size_bytes", [1024 * 1024, 8 * 1024])
async def test_without_room_admission_stops_and_what_runs_ends_in_the_room_there_is(
    start_gateway, engine, acme, tmp_path, size_bytes
):
    """A megabyte: no room for the next segment. 8 kB: not even in the present one any more."""
    gateway = start_gateway(engine.url)
    callers = Callers(gateway, acme.secret)
    running = [asyncio.ensure_future(callers.stream()) for _ in range(4)]
    while len(callers.words) < 4 or not all(callers.words.values()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with files_end_at(gateway.process.pid, size_bytes):
        full_at = time.monotonic()
        await callers.until_refused()
        print(f"admitted for {(callers.refused_at - full_at) * 1000:.0f} ms more")
        assert callers.refusals[0].json()["error"]["code"] == "journal_unavailable"
        if size_bytes > 8 * 1024:
            assert await asyncio.gather(*running) == [True] * 4
    roomy_at = time.monotonic()
    await callers.until_served()
    print(f"admitted again after {time.monotonic() - roomy_at:.2f} s")
    assert await asyncio.gather(*running) == [True] * 4
    await callers.client.aclose()
    await ended(gateway)
    events = events_of(gateway)
    for request_id in callers.whole:
        assert events[request_id].status == "ok"
        assert events[request_id].tokens_out == WORDS
    for request_id, event_ in events.items():
        assert event_.tokens_out >= callers.words.get(request_id, 0)


EAGER = (
    "import meterplane.journal.room as room; room.LOOK_EVERY_S = room.COUNT_EVERY_S = 0.1;"
    "import meterplane.gateway.__main__ as m; raise SystemExit(m.main())"
)


def test_what_waits_is_told_and_too_much_of_it_admits_nothing(start_gateway, triton, acme):
    port = free_port()
    gateway = start_gateway(
        triton.http_url,
        program=["-c", EAGER],
        JOURNAL_BACKLOG_BYTES_MAX="1",
        GATEWAY_METRICS_PORT=str(port),
    )
    body = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}

    def told(name):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])

    with gateway.client(acme.secret) as client:
        answers = [client.post("/v2/models/identity/infer", json=body)]
        assert answers[0].status_code == 200

        def answered(status):
            answers.append(client.post("/v2/models/identity/infer", json=body))
            return answers[-1].status_code == status

        wait_until(lambda: answered(503), "the refusal")
        assert "wait to be taken in" in answers[-1].json()["error"]
        assert answers[-1].headers["retry-after"]
        assert told("meterplane_gateway_journal_healthy") == 0

        def counted():  # what was served before the refusal may be sealed after it
            sealed = list(gateway.journal.rglob("*.sealed"))
            return told("meterplane_gateway_journal_backlog_segments") == len(sealed) > 0

        wait_until(counted, "all that waits being told")
        sealed = list(gateway.journal.rglob("*.sealed"))
        size_bytes = sum(path.stat().st_size for path in sealed)
        assert told("meterplane_gateway_journal_backlog_bytes") == size_bytes
        assert 0 < told("meterplane_gateway_journal_backlog_seconds") < 300
        for path in sealed:  # as the shipper does once they are taken in
            path.unlink()
        wait_until(lambda: answered(200), "it being admitted again")
