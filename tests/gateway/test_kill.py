"""What a caller holds is on disk, however the process ends."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys

import httpx2 as httpx
import pytest

from meterplane.contracts import usage
from tests.conftest import wait_until
from tests.gateway.engine import END, HEAD, Engine, event
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

INFER = (
    "/v2/models/identity/infer",
    {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]},
)
CHAT = (
    "/v1/chat/completions",
    {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 40},
)
RESPONSES = 300


def stream(call, tokens):
    return call[0], call[1] | {"stream": True, "max_tokens": tokens, "seed": 1}


async def test_kill_9_right_after_k_responses_loses_none_of_the_k(start_gateway, triton, acme):
    """Counted by the callers: infer requests, and streams that saw their `[DONE]`."""
    gateway = start_gateway(triton.http_url)
    finished: list[str] = []
    words: dict[str, int] = {}

    async def infer_on(client):
        while True:
            answer = await client.post(INFER[0], json=INFER[1])
            if answer.status_code == 200:
                finished.append(answer.headers["x-request-id"])
            if len(finished) >= RESPONSES:
                gateway.process.kill()

    async def stream_on(client):
        path, body = stream(CHAT, 40)
        while True:
            async with client.stream("POST", path, json=body) as answer:
                request_id = answer.headers["x-request-id"]
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        finished.append(request_id)
                    elif '"content":"' in line and '"content":""' not in line:
                        words[request_id] = words.get(request_id, 0) + 1

    async def until_killed(work):
        with contextlib.suppress(httpx.TransportError):
            await work

    headers = {"Authorization": f"Bearer {acme.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(until_killed(infer_on(client)) for _ in range(8)),
                *(until_killed(stream_on(client)) for _ in range(8)),
            )
    assert gateway.process.wait(30) == -signal.SIGKILL
    settled = [str(settle.request_id) for settle in gateway.settles()]
    assert len(finished) >= RESPONSES
    assert set(finished) <= set(settled)
    assert len(settled) == len(set(settled))
    admitted = {str(admit.request_id) for admit in gateway.admits()}
    assert set(settled) | set(words) <= admitted
    checkpoints = {
        str(frame.request_id): frame.tokens_out
        for frame in gateway.frames()
        if isinstance(frame, usage.Checkpoint)
    }
    cut = set(words) - set(settled)
    assert all(words[each] <= checkpoints[each] for each in cut)


@pytest.fixture
async def slow_engine():
    """Fifty words, one every 20 ms."""
    made = Engine()

    async def behave(peer):
        await peer.send(HEAD, *[event()] * 50, event("", 0, "stop"), END, pause_s=0.02)

    made.behave = behave
    async with scripted(made.script) as server:
        yield server


async def stream_until_sigterm(gateway, secret):
    """The lines of a stream during which the gateway is told to stop."""
    headers = {"Authorization": f"Bearer {secret}"}
    path, body = stream(CHAT, 100)
    lines = []
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client,
        client.stream("POST", path, json=body) as answer,
    ):
        with contextlib.suppress(httpx.RemoteProtocolError):
            async for line in answer.aiter_lines():
                lines.append(line)
                if "word" in line and sum("word" in each for each in lines) == 4:
                    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(gateway.process.wait, 30)
    return lines


async def test_sigterm_lets_a_stream_end_and_seals_the_journal(start_gateway, slow_engine, acme):
    gateway = start_gateway(slow_engine.url)
    lines = await stream_until_sigterm(gateway, acme.secret)
    assert "data: [DONE]" in lines
    (settle,) = gateway.settles()
    assert (settle.status, settle.tokens_out) == ("ok", 50)
    assert list(gateway.journal.rglob("*.sealed"))
    assert not list(gateway.journal.rglob("*.open"))


IMPATIENT = "import meterplane.gateway.__main__ as m; m.DRAIN_S = 0.2; raise SystemExit(m.main())"


async def test_what_the_drain_cuts_is_settled_for_what_was_made(start_gateway, slow_engine, acme):
    gateway = start_gateway(slow_engine.url, program=["-c", IMPATIENT])
    lines = await stream_until_sigterm(gateway, acme.secret)
    assert "data: [DONE]" not in lines
    (settle,) = gateway.settles()
    assert settle.status == "cancelled"
    assert 4 <= sum('"word "' in line for line in lines) <= settle.tokens_out < 50
    assert not list(gateway.journal.rglob("*.open"))


def test_a_disk_that_fails_ends_admission_and_nothing_is_served_unbilled(
    start_gateway, triton, acme
):
    gateway = start_gateway(triton.http_url)
    with gateway.client(acme.secret) as client:
        assert client.post(INFER[0], json=INFER[1]).status_code == 200
        # No file of this process may grow beyond 8 kB any more: the journal's next frames fail.
        limit = [sys.executable, "-c", "import resource, sys; resource.prlimit(int(sys.argv[1]),"
                 " resource.RLIMIT_FSIZE, (8192, 8192))", str(gateway.process.pid)]  # fmt: skip
        subprocess.run(limit, check=True)
        answers = []
        for _ in range(60):
            # One whose settlement is the write that fails has no end before the disk is well.
            with contextlib.suppress(httpx.ReadTimeout):
                answers.append(client.post(INFER[0], json=INFER[1], timeout=3))
        assert len(answers) >= 59
        served = 1 + sum(answer.status_code == 200 for answer in answers)
        assert answers[-1].status_code == 503
        assert json.loads(answers[-1].content)["error"]
        assert client.get("/readyz").status_code == 503
    assert {answer.status_code for answer in answers} == {200, 503}
    wait_until(lambda: len(gateway.settles()) == served, "one settlement for each response")
    gateway.process.kill()  # told to end, it would wait for its disk longer than we for it
