"""`/readyz` says what is missing, in words; the operator's port is apart from the callers'."""

import asyncio
import os
import signal
import socket
import time

import httpx2 as httpx
import psycopg
import pytest
import redis

from meterplane.gateway.config import ConfigInvalid, from_environment
from meterplane.gateway.readiness import FOUND_FOR_S, Shared
from tenants.keys import issue_key
from tests import environment
from tests.conftest import free_port, wait_until
from tests.gateway.deployments import deployed, says, whole
from tests.gateway.engine import END, HEAD, Engine, event
from tests.gateway.test_config import GOOD
from tests.triton.scripted import scripted

ROLE = "meterplane_gateway"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def slow_engine():
    """Fifty words, one every 20 ms."""
    made = Engine()

    async def behave(peer):
        await peer.send(HEAD, *[event()] * 50, event("", 0, "stop"), END, pause_s=0.02)

    made.behave = behave
    async with scripted(made.script) as server:
        yield server


def readiness(url: str) -> tuple[int, list[str]]:
    answer = httpx.get(f"{url}/readyz", timeout=30)
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert body["status"] == ("ok" if answer.status_code == 200 else "not_ready")
    return answer.status_code, body.get("missing", [])


def test_a_worker_with_all_it_needs_is_ready_before_any_key_exists(gateway):
    assert readiness(gateway.url) == (200, [])
    assert httpx.get(f"{gateway.url}/healthz").json() == {"status": "ok"}


def test_what_is_away_is_named_and_nothing_else_is(start_gateway, triton):
    gateway = start_gateway(
        triton.http_url,
        ADMISSION_REDIS_URL="redis://:a-password@127.0.0.1:1",
        GATEWAY_DATABASE_URL="postgresql://gateway:a-password@127.0.0.1:1/none",
    )
    assert readiness(gateway.url) == (503, ["admission_unreachable", "no_policy"])
    text = httpx.get(f"{gateway.url}/readyz").text
    assert "a-password" not in text
    assert "127.0.0.1" not in text
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200, "it lives all the same"


def test_a_redis_that_stalls_is_noticed_and_its_return_too_without_any_request(gateway, redis_url):
    with redis.Redis.from_url(redis_url) as admission:
        pid = admission.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: readiness(gateway.url) == (503, ["admission_unreachable"]), "the stall")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: readiness(gateway.url) == (200, []), "its return")


def cut_off(admin: "psycopg.Connection[tuple[int]]") -> None:
    """End what every gateway has of connections to PostgreSQL."""
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    admin.execute(cut, (ROLE,))


def test_held_policies_are_policies_while_postgresql_is_away(start_gateway, triton, acme):
    gateway = start_gateway(triton.http_url)
    admin = environment.database_url("postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        try:
            cut_off(connection)
            wait_until(lambda: readiness(gateway.url) == (503, ["no_policy"]), "the loss")
        finally:
            connection.execute(f"ALTER ROLE {ROLE} LOGIN")
        wait_until(lambda: readiness(gateway.url) == (200, []), "its return", 20)
        with gateway.client(acme.secret) as client:
            assert client.get("/v1/models").status_code == 200
        connection.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        try:
            cut_off(connection)
            assert readiness(gateway.url) == (200, [])
        finally:
            connection.execute(f"ALTER ROLE {ROLE} LOGIN")


def test_connections_that_postgresql_closed_are_replaced_and_no_caller_hears_of_it(
    start_gateway, triton, acme
):
    gateway = start_gateway(triton.http_url)
    secrets = [
        issue_key(tenant_id=acme.id, project_id=acme.project_id, name=str(number)).secret
        for number in range(3)
    ]
    chat = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}]}
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        for secret in secrets:
            cut_off(admin)
            with gateway.client(secret) as client:
                assert client.post("/v1/chat/completions", json=chat).status_code == 200


async def test_a_worker_that_drains_says_so_on_the_operators_port(
    start_gateway,
    slow_engine,
    acme,
):
    port = free_port()
    gateway = start_gateway(slow_engine.url, GATEWAY_METRICS_PORT=str(port))
    operator = f"http://127.0.0.1:{port}"
    assert readiness(operator) == (200, [])
    chat = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}]}
    body = chat | {"stream": True, "max_tokens": 100}
    headers = {"Authorization": f"Bearer {acme.secret}"}
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        gateway.process.send_signal(signal.SIGTERM)
        for _ in range(100):
            found = await asyncio.to_thread(readiness, operator)
            if found != (200, []):
                break
            await asyncio.sleep(0.02)
        assert found == (503, ["draining"])
        metrics = await asyncio.to_thread(httpx.get, f"{operator}/metrics")
        assert "meterplane_gateway_open_reservations 1\n" in metrics.text
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    await asyncio.to_thread(gateway.process.wait, 30)


def test_callers_find_no_metrics_and_operators_nothing_but(start_gateway, triton, acme):
    port = free_port()
    gateway = start_gateway(triton.http_url, GATEWAY_METRICS_PORT=str(port))
    with gateway.client(acme.secret) as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 404
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as operator:
        assert operator.get("/metrics").status_code == 200
        assert operator.get("/v1/models").status_code == 404
        assert operator.post("/metrics").status_code == 404
        answer = operator.get("/" + "x" * 50)
        assert answer.json() == {"error": "Here are GET /metrics, /healthz and /readyz."}


def test_without_being_told_a_port_nobody_is_told_anything(gateway):
    """No port is opened by itself: the one next to ours is closed."""
    listening = []
    with open(f"/proc/{gateway.process.pid}/net/tcp") as table:
        inodes = {
            os.readlink(f"/proc/{gateway.process.pid}/fd/{each}")
            for each in os.listdir(f"/proc/{gateway.process.pid}/fd")
        }
        for line in list(table)[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                listening.append(int(words[1].rpartition(":")[2], 16))
    assert listening == [int(gateway.url.rpartition(":")[2])]


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ("eight", "must be a port number"),
        ("70000", "must be a port number"),
        ("8701", "must not be GATEWAY_PORT"),
    ],
)
def test_a_metrics_port_that_cannot_be_is_said(port: str, problem: str):
    with pytest.raises(ConfigInvalid) as refused:
        from_environment(GOOD | {"GATEWAY_METRICS_PORT": port, "GATEWAY_PORT": "8701"})
    assert problem in str(refused.value)


def test_a_scraper_that_never_reads_costs_nobody_an_answer(start_gateway, triton):
    port = free_port()
    gateway = start_gateway(triton.http_url, GATEWAY_METRICS_PORT=str(port))
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for each in idle:
        each.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert readiness(gateway.url) == (200, [])
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200, "one")
    for each in idle:
        each.close()


async def asked_for_two_seconds(url: str, path: str, askers: int) -> int:
    """How many answers `askers` got, each asking again as soon as it was answered."""
    answers = 0
    end_at = time.monotonic() + 2

    async def ask(client: httpx.AsyncClient) -> None:
        nonlocal answers
        while time.monotonic() < end_at:
            assert (await client.get(path)).status_code == 200
            answers += 1

    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        await asyncio.gather(*[ask(client) for _ in range(askers)])
    return answers


async def test_however_many_ask_without_a_key_a_server_is_asked_four_times_a_second(start_gateway):
    async with deployed(says(whole({}))) as (server,):
        gateway = await asyncio.to_thread(start_gateway, server.url)
        before = server.probed
        answers = await asked_for_two_seconds(gateway.url, "/v2/health/ready", 20)
        looks = server.probed - before
        print(f"{answers} answers, {looks} looks")
        assert answers > 10 * looks
        assert 1 <= looks <= 2 / FOUND_FOR_S + 2  # the last may outlast the two seconds; a probe
        before = server.probed
        await asked_for_two_seconds(gateway.url, "/v2/health/live", 2)
        assert server.probed - before <= 1, "whether we live is asked of nobody"


async def test_who_asks_and_leaves_does_not_make_a_look_begin_again():
    looks, ended = 0, asyncio.Event()

    async def look() -> int:
        nonlocal looks
        looks += 1
        await ended.wait()
        return looks

    shared: Shared[int] = Shared()
    for _ in range(50):
        asker = asyncio.create_task(shared.found(look))
        await asyncio.sleep(0)
        asker.cancel()
        await asyncio.wait({asker})
    others = [asyncio.create_task(shared.found(look)) for _ in range(50)]
    await asyncio.sleep(0)
    ended.set()
    assert await asyncio.gather(*others) == [1] * 50
    assert await shared.found(look) == 1, "it holds for a while"
    await asyncio.sleep(FOUND_FOR_S)
    assert await shared.found(look) == 2
