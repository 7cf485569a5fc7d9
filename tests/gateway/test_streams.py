"""Every way a stream can end, against an engine that does exactly what a test wrote down.

However it ends: one SETTLE for the one ADMIT, delivered <= billed <= generated, and no `[DONE]`
unless it is true. What the engine itself failed is free, unless its model says otherwise.
"""

import asyncio
import json

import httpx2 as httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.engine import HEAD, Engine, chunked, event, failure
from tests.gateway.models_on_sale import SAMPLES, put_on_sale
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

IN_PICO, OUT_PICO = 150_000, 600_000  # tiny-lm's price per token, from the catalog
ASK = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}


def nano(tokens_in, tokens_out):
    return (tokens_in * IN_PICO + tokens_out * OUT_PICO) // 1000


@pytest.fixture(scope="module")
def engine_port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, engine_port, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams") / "gateway"
    gateway = launch(folder, f"http://127.0.0.1:{engine_port}")
    yield gateway
    end(gateway)


@pytest.fixture
async def engine(engine_port):
    made = Engine()
    async with scripted(made.script, engine_port):
        yield made


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture(params=[False, True], ids=["errors are free", "errors are billed"])
def errors_billed(request, acme, tmp_path):
    """Whether what the engine failed is due for what it used: as the model's owner decided."""
    put_on_sale(tmp_path, SAMPLES["tiny-lm"] | {"bill_errors": request.param})
    return request.param


@pytest.fixture
async def client(gateway, acme):
    headers = {"Authorization": f"Bearer {acme.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as made:
        yield made


def datas(text):
    return [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]


def words(text):
    """How many of the engine's words a caller received."""
    return sum(data.count('"word "') for data in datas(text))


async def settled(gateway):
    """The one SETTLE of the one ADMIT, once it is there."""
    await asyncio.to_thread(wait_until, lambda: gateway.settles(), "the settlement")
    (admit,), (settle,) = gateway.admits(), gateway.settles()
    assert admit.request_id == settle.request_id
    assert settle.cost_nano <= admit.reserved_nano
    return settle


async def test_a_whole_stream_ends_with_done_and_its_counts(engine, gateway, client):
    engine.sends(event(), event(tokens=2), event("", 0, "stop"))
    answer = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert datas(answer.text)[-1] == "[DONE]"
    settle = await settled(gateway)
    assert (settle.status, settle.tokens_in, settle.tokens_out) == ("ok", 4, 3)
    assert settle.cost_nano == nano(4, 3)
    assert settle.bytes_out == len(answer.content)


def is_due_as_decided(settle, tokens_out, errors_billed):
    """A failed answer's counts and cost: those of what was made, or none at all."""
    if not errors_billed:
        counts = (settle.tokens_in, settle.tokens_out, settle.requests, settle.cost_nano)
        return counts == (0, 0, 0, 0)
    return (settle.tokens_in, settle.tokens_out) == (4, tokens_out) and (
        settle.cost_nano == nano(4, tokens_out)
    )


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_engine_that_dies_mid_stream_is_free_unless_its_model_bills_errors(
    engine, gateway, client, errors_billed, then
):
    engine.sends(event(), event(), then=then)
    answer = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert "[DONE]" not in answer.text
    assert json.loads(datas(answer.text)[-1])["error"]["code"] == "upstream_broken"
    settle = await settled(gateway)
    assert (settle.status, settle.http_status) == ("error", 502)
    assert words(answer.text) == 2
    assert is_due_as_decided(settle, 2, errors_billed)


async def test_a_plain_answer_that_dies_half_way_is_free_unless_its_model_bills_errors(
    engine, gateway, client, errors_billed
):
    engine.sends(event(), event(), then="close")
    answer = await client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_broken")
    settle = await settled(gateway)
    assert (settle.status, settle.http_status) == ("error", 502)
    assert is_due_as_decided(settle, 2, errors_billed)


async def test_an_error_inside_a_running_stream_ends_it(engine, gateway, client, errors_billed):
    engine.sends(event(), failure("out of memory"), event())
    answer = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert "out of memory" in json.loads(datas(answer.text)[-1])["error"]["message"]
    assert "[DONE]" not in answer.text
    settle = await settled(gateway)
    assert settle.status == "error"
    assert is_due_as_decided(settle, 1, errors_billed)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([failure("bad seed")], 400),
        ([chunked(b"data: nonsense\n\n")], 502),
        ([chunked(b"data: {}\n\n")], 502),
        ([], 502),
    ],
    ids=["error in a 200", "not JSON", "no counts", "nothing"],
)
async def test_an_answer_that_fails_before_its_first_word_is_an_error_and_free(
    engine, gateway, client, pieces, status, stream
):
    engine.sends(*pieces)
    answer = await client.post("/v1/chat/completions", json=ASK | {"stream": stream})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    settle = await settled(gateway)
    assert (settle.status, settle.cost_nano, settle.requests) == ("error", 0, 0)


async def test_counts_that_stop_coming_end_the_stream(engine, gateway, client, errors_billed):
    engine.sends(event(), chunked(b'data: {"text_output":"free words"}\n\n'))
    answer = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert "free words" not in answer.text
    assert json.loads(datas(answer.text)[-1])["error"]["code"] == "unmeasurable_answer"
    assert is_due_as_decided(await settled(gateway), 1, errors_billed)


@pytest.mark.parametrize("count", [2**31, 10**30, -1, True])
async def test_a_count_that_cannot_be_is_no_count(engine, gateway, client, count):
    engine.sends(event(tokens=count), event("", 0, "stop"))
    answer = await client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "unmeasurable_answer")
    assert (await settled(gateway)).cost_nano == 0


async def test_an_engine_that_counts_beyond_its_bound_costs_the_reservation_at_most(
    engine, gateway, client
):
    engine.sends(event(tokens=10**9), event("", 0, "stop"))
    await client.post("/v1/chat/completions", json=ASK)
    settle = await settled(gateway)
    assert settle.cost_nano == settle.reserved_nano


async def test_a_caller_who_leaves_a_stream_stops_the_engine_and_pays_what_it_made(
    engine, gateway, client
):
    engine.sends(event(), event(), event(), then="silence")
    received = ""
    async with client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as answer:
        async for text in answer.aiter_text():
            received += text
            if words(received) >= 2:
                break
    await asyncio.wait_for(engine.client_left.wait(), 20)
    settle = await settled(gateway)
    assert (settle.status, settle.http_status) == ("cancelled", 499)
    assert words(received) <= settle.tokens_out <= 3
    assert settle.cost_nano == nano(4, settle.tokens_out)


async def test_a_caller_who_leaves_before_a_plain_answer_stops_the_engine_too(
    engine, gateway, client
):
    engine.sends(event(), event(), then="silence")
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/chat/completions", json=ASK, timeout=0.5)
    await asyncio.wait_for(engine.client_left.wait(), 20)
    settle = await settled(gateway)
    assert (settle.status, settle.tokens_out) == ("cancelled", 2)


async def test_a_caller_who_leaves_before_the_first_word_pays_nothing(engine, gateway, client):
    engine.sends(then="silence")
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/chat/completions", json=ASK | {"stream": True}, timeout=0.5)
    await asyncio.wait_for(engine.client_left.wait(), 20)
    settle = await settled(gateway)
    assert (settle.status, settle.cost_nano) == ("cancelled", 0)


async def test_a_caller_who_does_not_read_slows_the_engine(engine, gateway, acme):
    """Back-pressure: what is not read is not buffered, and what was made is billed on leaving."""
    sent = 0

    async def behave(peer):
        nonlocal sent
        await peer.send(HEAD)
        while True:
            await peer.send(event("x" * 60_000))
            sent += 1

    engine.behave = behave
    port = int(gateway.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    body = json.dumps(ASK | {"stream": True}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + acme.secret.encode()
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    before = -1
    while sent != before:  # until a second passes without another event
        before = sent
        await asyncio.sleep(1)
    assert 0 < sent * 60_000 < 32 * 1024 * 1024
    writer.transport.abort()
    settle = await settled(gateway)
    assert settle.status == "cancelled"
    assert 0 < settle.tokens_out <= sent


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": "x"}, b'{"outputs":[]}'),
        (
            "/v2/models/identity/infer",
            {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]},
            b'{"error":"CUDA is gone"}',
        ),
    ],
    ids=["no counts", "error in a 200"],
)
async def test_a_whole_answer_that_is_none_is_an_error_and_free(
    engine, gateway, client, path, body, reply
):
    async def behave(peer):
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply), reply)

    engine.behave = behave
    answer = await client.post(path, json=body)
    assert answer.status_code == 502
    settle = await settled(gateway)
    assert (settle.status, settle.cost_nano, settle.requests) == ("error", 0, 0)
