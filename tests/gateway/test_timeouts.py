"""Each wait for a server has its end, its own status, and one usage event.

To connect, to the first byte, between two, and for the whole: against a real gateway process.
"""

import socket
import time

import pytest

from tests.gateway.conftest import as_if_new
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    IN_NANO,
    OUT_NANO,
    asking,
    clients_of,
    completion,
    delta,
    deployed,
    last_event,
    model,
    new_name,
    says,
    settlements,
    target,
)
from tests.gateway.engine import event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
async def shop(gateway, onboard, tmp_path):
    """`shop(models...)`: a client of a tenant who may use them."""
    async with clients_of(gateway, onboard, tmp_path) as open_for:
        yield open_for


@pytest.fixture
def full_backlog():
    """An address whose connections are never made: nobody accepts, and the queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for caller in callers:
            caller.close()


async def test_a_connection_that_is_never_made_is_given_up_and_another_server_asked(
    shop, gateway, full_backlog
):
    async with deployed(says(completion())) as (other,):
        name, spare = new_name(), new_name()
        client = shop(
            model(name, targets=[target("a", full_backlog)], fallbacks=[spare]),
            model(spare, targets=[target("a", other.url)]),
            model(alone := new_name(), targets=[target("a", full_backlog)]),
        )
        began = time.monotonic()
        answer = await client.post(CHAT, json=asking(name))
        assert answer.status_code == 200
        assert 1.9 < time.monotonic() - began < 30
        assert (await client.post(CHAT, json=asking(alone))).status_code == 503
    first, second = await settlements(gateway, 2)
    assert (first.status, first.model, first.retries) == ("ok", spare, 1)
    assert (second.status, second.http_status, second.cost_nano) == ("error", 503, 0)


async def silent(peer):
    await peer.gone()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_first_byte_that_does_not_come_is_504_and_nobody_else_is_asked(
    shop, gateway, stream
):
    async with deployed(silent, silent, says(completion())) as (first, second, other):
        name, spare = new_name(), new_name()
        arms = [target("a", first.url, second.url)]
        client = shop(
            model(name, targets=arms, fallbacks=[spare], first_byte_timeout_s=0.3),
            model(spare, targets=[target("a", other.url)]),
        )
        answer = await client.post(CHAT, json=asking(name, stream=stream))
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"
        assert (first.asked + second.asked, other.asked) == (1, 0)
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status, settled.cost_nano) == ("error", 504, 0)


def one_word_of(surface):
    """A server's first word, the path and body that ask for it, and how its surface tells errors:
    `path, body of a name, pieces, message of an event`.
    """
    if surface == "generate":
        return (
            lambda name: f"/v2/models/{name}/generate_stream",
            lambda name: {
                "text_input": "x",
                "stream": True,
                "sampling_parameters": '{"max_tokens": 500}',
            },
            event(),
            lambda told: told["error"],
        )
    piece = event() if surface == "vllm" else delta()
    return (
        lambda name: CHAT,
        lambda name: asking(name, stream=True, max_tokens=500),
        piece,
        lambda told: told["error"]["message"],
    )


@pytest.mark.parametrize("surface", ["openai", "vllm", "generate"])
async def test_a_stream_that_falls_silent_ends_with_an_error_in_its_surfaces_words(
    shop, gateway, surface
):
    path, body, piece, message = one_word_of(surface)

    async def behave(peer):
        await peer.send(CHUNKS, piece)
        await peer.gone()

    async with deployed(behave) as (server,):
        name = new_name()
        adapter = "openai" if surface == "openai" else "vllm"
        arms = [target("a", server.url)]
        client = shop(model(name, adapter, targets=arms, idle_timeout_s=0.3))
        answer = await client.post(path(name), json=body(name))
        assert answer.status_code == 200
        assert "word" in answer.text
        assert "in time" in message(last_event(answer))
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status, settled.cost_nano) == ("error", 504, 0)


@pytest.mark.parametrize("surface", ["openai", "vllm", "generate"])
async def test_a_stream_without_end_ends_in_its_surfaces_words_and_is_due(shop, gateway, surface):
    """The whole of an answer has its time. It is not the model that failed."""
    path, body, piece, message = one_word_of(surface)
    sent = 0

    async def behave(peer):
        nonlocal sent
        await peer.send(CHUNKS)
        while True:
            await peer.send(piece, pause_s=0.05)
            sent += 1

    async with deployed(behave) as (server,):
        name = new_name()
        adapter = "openai" if surface == "openai" else "vllm"
        arms = [target("a", server.url)]
        client = shop(model(name, adapter, targets=arms, duration_s_max=0.5))
        began = time.monotonic()
        answer = await client.post(path(name), json=body(name))
        assert 0.5 <= time.monotonic() - began < 30
        assert answer.status_code == 200
        assert "in time" in message(last_event(answer))
        delivered = answer.text.count("word")
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status) == ("interrupted", 504)
    assert delivered <= settled.tokens_out <= sent + 1
    assert settled.cost_nano == settled.tokens_in * IN_NANO + settled.tokens_out * OUT_NANO > 0


async def test_a_plain_answer_that_takes_too_long_is_504(shop, gateway):
    async with deployed(silent) as (server,):
        name = new_name()
        client = shop(model(name, targets=[target("a", server.url)], duration_s_max=0.5))
        answer = await client.post(CHAT, json=asking(name))
        assert answer.status_code == 504
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status) == ("interrupted", 504)
    assert (settled.cost_nano, settled.requests) == (0, 0)
