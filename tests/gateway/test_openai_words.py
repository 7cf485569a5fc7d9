"""What a server says under `/v1`, as the caller is told it: through every kind of adapter.

A caller can act on what a server says of a request. What it says of itself, and of the key it is
asked with, is its operator's.
"""

import asyncio
import json

import httpx2 as httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.models_on_sale import SAMPLES, sell, text_model
from tests.gateway.openai_doubles import Double, stream, whole
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ENGINE = text_model("engine", "vllm", upstream="inner")
PASSED_ON = text_model("passed", "openai", upstream="inner")
EMBEDDING = SAMPLES["all-minilm-l6-v2"] | {"name": "embedding", "upstream": "inner"}
WAYS = [
    (CHAT, {"model": "engine", "messages": [{"role": "user", "content": "hi"}]}),
    (COMPLETE, {"model": "engine", "prompt": ["hi", "ho"], "stream": True}),
    (CHAT, {"model": "passed", "messages": [{"role": "user", "content": "hi"}]}),
    (COMPLETE, {"model": "passed", "prompt": "hi", "stream": True}),
    (EMBED, {"model": "passed", "input": "hi"}),
    (EMBED, {"model": "embedding", "input": "hi"}),
]
SHARED_MEMORY = (
    "Failed to increase the shared memory pool size for key"
    " 'triton_python_backend_shm_region_4f50c226', At:\n  /models/inner/1/model.py(123): execute"
)
STACK = "it broke\n\nAt:\n  /models/inner/1/model.py(12): execute\n"
KEY = "Incorrect API key provided: sk-upstream-ABC. See https://example.com/account"


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, port, tmp_path_factory):
    gateway = launch(tmp_path_factory.mktemp("words") / "gateway", f"http://127.0.0.1:{port}")
    yield gateway
    end(gateway)


@pytest.fixture
async def server(port):
    made = Double()
    async with scripted(made.script, port):
        yield made


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
def selling(transactional_db, redis_url, tmp_path):
    sell(tmp_path, ENGINE, PASSED_ON, EMBEDDING)


@pytest.fixture
def customer(acme):
    """A tenant who may use them all."""
    return acme


@pytest.fixture
async def post(gateway, customer):
    """`await post(path, json=...)`."""
    headers = {"Authorization": f"Bearer {customer.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client.post


async def settled(gateway):
    """The one SETTLE of the one ADMIT, once it is there."""
    await asyncio.to_thread(wait_until, lambda: gateway.settles(), "the settlement")
    (admit,), (settle,) = gateway.admits(), gateway.settles()
    assert admit.request_id == settle.request_id
    return settle


REFUSALS = [
    ("400 Bad Request", "unexpected input for model 'inner'", 400, "invalid_request",
     "unexpected input for model '{}'"),
    ("400 Bad Request", "no room in /dev/shm", 400, "invalid_request",
     "the model refused the request"),
    ("500 Internal Server Error", SHARED_MEMORY, 502, "upstream_failed", "the model failed"),
    ("500 Internal Server Error", STACK, 502, "upstream_failed", "it broke"),
    ("500 Internal Server Error", "cannot open /usr/lib/x", 502, "upstream_failed",
     "the model failed"),
    ("500 Internal Server Error", "10.0.0.7:8001 is gone", 502, "upstream_failed",
     "the model failed"),
    ("500 Internal Server Error", KEY, 502, "upstream_failed", "the model failed"),
    ("401 Unauthorized", KEY, 502, "upstream_credentials_refused",
     "The operator's credentials for this model were refused by its server."),
    ("403 Forbidden", KEY, 502, "upstream_credentials_refused",
     "The operator's credentials for this model were refused by its server."),
    ("404 Not Found", "The model `inner` does not exist.", 502, "upstream_model_missing",
     "The operator must see to this model: the server it is reached by does not have it."),
    ("400 Bad Request", "Request for unknown model: 'inner' version 7 is not found", 502,
     "upstream_model_missing",
     "The operator must see to this model: the server it is reached by does not have it."),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), WAYS)
async def test_a_refusal_is_told_in_our_names_and_nothing_of_its_server(
    server, gateway, post, path, body
):
    for status, said, ours, code, told in REFUSALS:
        await asyncio.to_thread(as_if_new, gateway)
        server.says(*whole({"error": said}, status))
        answer = await post(path, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (ours, code), said
        assert error["message"] == told.format(body["model"])
        settle = await settled(gateway)
        assert (settle.status, settle.http_status, settle.cost_nano) == ("error", ours, 0)


@pytest.mark.parametrize(("path", "body"), WAYS)
async def test_a_server_that_cannot_just_now_does_not_say_why(server, gateway, post, path, body):
    server.says(*whole({"error": SHARED_MEMORY}, "503 Service Unavailable"))
    answer = await post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert "shared memory" not in answer.text
    assert "model.py" not in answer.text


PIECE = {
    "text_output": "one ", "num_input_tokens": 5, "num_output_tokens": 1, "finish_reason": "None",
    "choices": [{"index": 0, "text": "one ", "finish_reason": None}],
}  # fmt: skip


@pytest.mark.parametrize("model", ["engine", "passed"])
@pytest.mark.parametrize(
    ("said", "told"),
    [(SHARED_MEMORY, "the model failed"), (STACK, "it broke"), (KEY, "the model failed")],
)
async def test_an_error_in_the_middle_of_a_stream_is_told_so_too(
    server, gateway, post, model, said, told
):
    server.says(*stream(PIECE, {"error": said}))
    answer = await post(COMPLETE, json={"model": model, "prompt": "hi", "stream": True})
    *_, last = [line for line in answer.text.split("\n\n") if line]
    assert "one " in answer.text
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == told
    assert (await settled(gateway)).status == "error"


async def test_an_error_inside_a_200_is_told_so_too(server, post):
    server.says(*whole({"error": {"message": KEY}, "object": "error"}))
    answer = await post(CHAT, json=WAYS[2][1])
    assert (answer.status_code, answer.json()["error"]["message"]) == (502, "the model failed")


async def test_a_model_that_is_not_decoupled_is_told_without_its_servers_words(server, post):
    server.says(*stream({"error": "model /models/inner doesn't support decoupled policy"}))
    answer = await post(CHAT, json=WAYS[0][1])
    assert answer.json()["error"]["code"] == "model_not_decoupled"
    assert "inner" not in answer.text


DEAD = [
    "Stub process is not healthy.",
    "Stub process 'inner_0_0' is not healthy.",
    "Failed to process the request(s) for model instance 'inner_0_0', message: Stub process is"
    " not healthy.",
    "in ensemble 'outer', Failed to process the request(s) for model 'inner', message: Stub process"
    " 'inner_0_0' is not healthy.",
]


@pytest.mark.parametrize("said", DEAD)
async def test_a_model_whose_process_died_cannot_take_a_request(server, gateway, post, said):
    server.says(*whole({"error": said}, "400 Bad Request"))
    answer = await post(CHAT, json=WAYS[0][1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")


@pytest.mark.parametrize(
    "said", ["bad input 'x is not healthy'", "bad input '" + DEAD[0] + "'", DEAD[2] + " said hi"]
)
async def test_a_callers_own_words_do_not_make_a_model_dead(server, gateway, post, said):
    server.says(*whole({"error": said}, "400 Bad Request"))
    for _ in range(2):
        answer = await post(CHAT, json=WAYS[0][1])
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)
    assert len(server.asked) == 2
