"""Servers that nobody asks are looked after."""

import asyncio
import time

import pytest

from meterplane.triton import probes
from meterplane.triton.failures import TritonUnavailable
from tests.conftest import eventually
from tests.triton.fleets import BUSY, OK, ask, dead_url, forever, state
from tests.triton.scripted import Peer, scripted

NOT_READY = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
NO_SUCH_PATH = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
PROBED = b"GET /v2/health/ready HTTP/1.1"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(probes, "TICK_S", 0.01)
    monkeypatch.setattr(probes, "EJECTED_PROBE_S", 0.05)
    monkeypatch.setattr(probes, "SUSPECT_PROBE_S", 0.02)
    monkeypatch.setattr(probes, "TIMEOUT_S", 0.1)


@pytest.mark.parametrize("answer", [OK, NOT_READY, NO_SUCH_PATH], ids=["200", "400", "404"])
async def test_a_server_that_is_back_is_found_without_a_request(fleets, answer):
    async def script(peer: Peer) -> None:
        await forever(peer, answer)

    url = dead_url()
    fleet = fleets(url)
    fleet.start()
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    assert not state(fleet, url).healthy
    async with scripted(script, port=int(url.rpartition(":")[2])) as server:
        await eventually(lambda: state(fleet, url).healthy)
        assert state(fleet, url).requests == 1
        await ask(fleet.pool())
        assert server.connections == 1  # the probe's was kept


@pytest.mark.parametrize("answer", [BUSY, b"garbage\r\n\r\n", b""], ids=["503", "garbage", "none"])
async def test_a_server_that_answers_no_probe_stays_ejected(fleets, answer):
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(answer)

    url = dead_url()
    fleet = fleets(url)
    fleet.start()
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    async with scripted(script, port=int(url.rpartition(":")[2])) as server:
        await eventually(lambda: server.connections >= 3)
        assert not state(fleet, url).healthy


@pytest.mark.parametrize("alive", [True, False])
async def test_a_503_ejects_only_when_the_server_is_not_alive_either(fleets, alive):
    probed = 0

    async def script(peer: Peer) -> None:
        nonlocal probed
        while request := await peer.request():
            if request.startswith(PROBED):
                probed += 1
                await peer.send(OK if alive else BUSY)
            else:
                await peer.send(BUSY)

    async with scripted(script) as server:
        fleet = fleets(server.url)
        await ask(fleet.pool())
        fleet.start()
        for _ in range(5):
            assert (await ask(fleet.pool())).status == 503
        await eventually(lambda: probed > 0)
        await asyncio.sleep(0.03)
        assert state(fleet, server.url).healthy is alive


async def test_a_healthy_server_that_nobody_asks_is_probed_now_and_then(fleets, monkeypatch):
    monkeypatch.setattr(probes, "IDLE_PROBE_S", 0.1)
    probed = 0

    async def script(peer: Peer) -> None:
        nonlocal probed
        while request := await peer.request():
            probed += request.startswith(PROBED)
            await peer.send(OK)

    async with scripted(script) as server:
        fleet = fleets(server.url)
        fleet.start()
        for _ in range(30):  # 0.3 s in which it is asked
            await ask(fleet.pool())
            await asyncio.sleep(0.01)
        assert probed == 0
        await eventually(lambda: probed >= 2)
    await eventually(lambda: not state(fleet, server.url).healthy)  # it went, and that was seen


async def test_while_checks_run_no_request_is_a_trial_if_another_server_can_answer(fleets):
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with scripted(silent) as hanging, scripted(forever) as good:
        fleet = fleets(hanging.url, good.url)
        fleet.start()
        for _ in range(10):
            fleet._servers[hanging.url].circuit.failed(time.monotonic(), 0)
        fleet._servers[hanging.url].circuit._until = 0.0
        before = state(fleet, hanging.url).requests
        for _ in range(30):
            assert (await ask(fleet.pool())).server == good.url
        assert state(fleet, hanging.url).requests == before


async def test_a_server_that_left_the_catalog_is_probed_no_more(fleets, monkeypatch):
    monkeypatch.setattr(probes, "UNASKED_S_MAX", 0.2)
    url = dead_url()
    fleet = fleets(url)
    fleet.start()
    with pytest.raises(TritonUnavailable):
        await ask(fleet.pool())
    await asyncio.sleep(0.4)
    failures = state(fleet, url).failures
    await asyncio.sleep(0.2)
    assert 1 < failures == state(fleet, url).failures


async def test_closing_ends_the_checks(fleets):
    fleet = fleets(dead_url())
    fleet.start()
    fleet.start()
    await asyncio.sleep(0.02)
    await fleet.close()
    assert [task for task in asyncio.all_tasks() if "triton" in task.get_name()] == []
