"""Fields beyond OpenAI's, which an embedding model's allow-list has: they reach the model.

A real gateway process in front of a server that remembers what it was asked.
"""

import asyncio
import json
from array import array

import httpx2 as httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.models_on_sale import SAMPLES, sell
from tests.gateway.openai_doubles import Double
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

MODEL = SAMPLES["all-minilm-l6-v2"] | {
    "name": "embedding", "upstream": "inner", "parameters": ["truncate", "task"],
}  # fmt: skip
VECTOR = array("f", [0.5, -1.0]).tobytes()
HEAD = json.dumps(
    {"outputs": [{"name": "EMBEDDING", "shape": [1, 2]}, {"name": "TOKENS", "data": [4]}]}
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b%b"
    % (len(HEAD), len(HEAD) + len(VECTOR), HEAD, VECTOR)
)


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, port, tmp_path_factory):
    gateway = launch(tmp_path_factory.mktemp("fields") / "gateway", f"http://127.0.0.1:{port}")
    yield gateway
    end(gateway)


@pytest.fixture
async def server(port):
    made = Double()
    made.says(ANSWER)
    async with scripted(made.script, port):
        yield made


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
def selling(transactional_db, redis_url, tmp_path):
    sell(tmp_path, MODEL)


@pytest.fixture
def customer(acme):
    """A tenant who may use it."""
    return acme


@pytest.fixture
async def embed(gateway, customer):
    """`await embed(...)`."""
    headers = {"Authorization": f"Bearer {customer.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:

        async def post(**fields):
            body = {"model": "embedding", "input": "hi"} | fields
            return await client.post("/v1/embeddings", json=body)

        yield post


async def test_a_field_of_the_allow_list_reaches_the_model_as_a_parameter(server, embed):
    answer = await embed(truncate=True, task='a "query"')
    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"] == [0.5, -1.0]
    (asked,) = server.asked
    assert asked.body["parameters"] == {"truncate": True, "task": 'a "query"'}
    assert asked.body["inputs"][0]["data"] == ["hi"]


async def test_who_sends_none_sends_no_parameters(server, embed):
    assert (await embed()).status_code == 200
    assert "parameters" not in server.asked[0].body


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
async def test_what_cannot_be_a_parameter_is_refused_by_name_and_free(
    server, gateway, embed, value
):
    answer = await embed(task=value)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "task")
    assert server.asked == []
    await asyncio.to_thread(wait_until, gateway.at_rest, "the settlement")
    assert all(settle.cost_nano == 0 for settle in gateway.settles())
