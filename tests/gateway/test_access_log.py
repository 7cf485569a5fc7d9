"""One line for each request; of what a caller sends, nothing but its method and path."""

import asyncio
import gzip
import json
import os
import secrets
from types import SimpleNamespace

import httpx2 as httpx
import pytest

from meterplane.contracts import api_key
from meterplane.gateway.access_log import WAITING_LINES_MAX, AccessLog
from tests.conftest import wait_until
from tests.gateway.deployments import (
    CHAT,
    asking,
    let_in,
    model,
    new_name,
    put_on_sale,
    target,
)
from tests.gateway.listening import listening

REQUESTS = 12


def places(secret_of, name: str, key: str):
    """Requests with a secret in each place that a caller can put one."""
    body = asking(name, user=secret_of("user"), stop=[secret_of("stop")])
    body["messages"] = [{"role": "user", "content": secret_of("prompt")}]
    headers = {
        "X-Api-Key": secret_of("header"),
        "Cookie": f"session={secret_of('cookie')}",
        "User-Agent": secret_of("agent"),
        "Referer": f"https://x/?{secret_of('referer')}",
        "Traceparent": secret_of("traceparent"),
        "Tracestate": f"a={secret_of('tracestate')}",
        secret_of("header-name"): "1",
    }
    return [
        ("POST", CHAT, headers, json.dumps(body).encode()),
        ("POST", CHAT, headers, json.dumps(body | {"stream": True}).encode()),
        ("POST", f"{CHAT}?key={secret_of('query')}", {}, json.dumps(body).encode()),
        ("POST", CHAT, {}, secret_of("no-json").encode()),
        ("POST", CHAT, {}, json.dumps(body | {secret_of("parameter"): 1}).encode()),
        ("POST", CHAT, {}, json.dumps(body | {"model": secret_of("model")}).encode()),
        ("POST", CHAT, {"Content-Encoding": secret_of("encoding")}, b"{}"),
        ("POST", CHAT, {"Content-Encoding": "gzip"}, gzip.compress(secret_of("packed").encode())),
        ("POST", CHAT, {"Authorization": f"Bearer {secret_of('bearer')}"}, b"{}"),
        ("POST", CHAT, {"Authorization": f"Basic {secret_of('basic')}"}, b"{}"),
        ("GET", f"/v1/models/{key}", {}, b""),
        ("GET", f"/{key}?{secret_of('nowhere')}", {}, b""),
    ]


@pytest.mark.django_db(transaction=True)
async def test_no_secret_of_a_caller_is_in_the_log_wherever_it_was_put(
    start_gateway, onboard, tmp_path
):
    name, sent = new_name("quiet"), []

    def secret_of(place: str) -> str:
        sent.append(f"{place}-{secrets.token_hex(12)}")
        return sent[-1]

    async with listening() as server:
        gateway = start_gateway(server.url, OUR_UPSTREAM_KEY=(upstream := secrets.token_hex(12)))
        put_on_sale(
            tmp_path,
            model(name, targets=[target("only", server.url)], secret_env="OUR_UPSTREAM_KEY"),
        )
        key = let_in(onboard).secret
        requests = places(secret_of, name, key)
        statuses = []
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            for method, path, headers, content in requests:
                headers = {"Authorization": f"Bearer {key}"} | headers
                answer = await client.request(method, path, headers=headers, content=content)
                statuses.append(answer.status_code)
        assert f"Bearer {upstream}".encode() in server.heard[0]
    assert statuses == [200, 200, 200, 400, 400, 404, 415, 400, 401, 401, 404, 404]

    def lines():
        return [line for line in gateway.log.read_text().splitlines() if line.startswith("{")]

    await asyncio.to_thread(wait_until, lambda: len(lines()) == REQUESTS, "a line each")
    text = gateway.log.read_text()
    assert [place for place in sent if place in text] == []
    assert upstream not in text
    assert key not in text
    assert key[12:40] not in text, "not a part of it either"
    for line, status in zip(map(json.loads, lines()), statuses, strict=True):
        assert line["status"] == status
        assert set(line) <= {
            *("request_id", "method", "path", "status", "code", "ms", "bytes_out", "trace_id"),
            *("tenant_id", "project_id", "key_id", "model", "tokens_in", "tokens_out"),
            *("cost_nano", "server", "retries"),
        }
    assert json.loads(lines()[-1])["path"] == f"/{api_key.PREFIXES['live']}..."


def told(number: int, name: str = "request"):
    return SimpleNamespace(
        request_name=f"{name}-{number}",
        method="GET",
        path="/v1/models",
        status=200,
        bytes_out=1,
        run=None,
        trace=None,
    )


async def test_a_reader_that_stops_reading_stops_no_request():
    reading, writing = os.pipe()
    log = AccessLog(writing)
    total = WAITING_LINES_MAX + 1000
    for number in range(total):
        log.tell(told(number), "", 0.001)
    log.flush()  # the pipe is full after 64 kB: a plain write would wait for ever
    assert log.dropped == 1000
    assert 0 < log.waiting < WAITING_LINES_MAX

    def read_all() -> bytes:
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read()

    reader = asyncio.create_task(asyncio.to_thread(read_all))
    for _ in range(1000):
        if log.waiting:
            await asyncio.sleep(0.01)
    assert log.waiting == 0
    os.close(writing)
    lines = [json.loads(line) for line in (await reader).splitlines()]
    assert [line["request_id"] for line in lines] == [
        f"request-{number}" for number in range(WAITING_LINES_MAX)
    ]


async def test_lines_that_cannot_be_written_are_counted():
    full = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(full)
    log.tell(told(1), "", 0.001)
    log.flush()
    os.close(full)
    assert log.dropped == 1


async def test_a_line_longer_than_a_pipe_takes_at_once_is_written_all_the_same():
    reading, writing = os.pipe()
    log = AccessLog(writing)
    log.tell(told(1, "x" * 10_000), "", 0.001)
    log.tell(told(2), "", 0.001)
    log.flush()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert [len(line) > 10_000 for line in pipe.read().splitlines()] == [True, False]
