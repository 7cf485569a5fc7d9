"""What a v2 server says, as the caller is told it: scripted servers behind a real gateway."""

import json

import pytest

from tests.gateway.deployments import (
    TENSORS,
    deployed,
    let_in,
    model,
    new_name,
    put_on_sale,
    says,
    target,
    whole,
)
from tests.gateway.engine import HEAD, chunked

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ask(gateway, onboard, tmp_path):
    """POST to a model that one scripted server holds as `inner`; the answer and the sold name."""
    import httpx2 as httpx

    async def send(answer, verb="infer", body=TENSORS, **fields):
        name = new_name()
        async with deployed(says(answer)) as [server]:
            at = target("only", server.url, upstream="inner", **fields.pop("at", {}))
            put_on_sale(tmp_path, model(name, "tensor", targets=[at], **fields))
            headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
                return await client.post(f"/v2/models/{name}/{verb}", json=body), name

    return send


@pytest.mark.parametrize(
    ("status", "said", "ours", "told"),
    [
        ("400 Bad Request", "unexpected inference output 'X' for model 'inner'", 400,
         "unexpected inference output 'X' for model '{}'"),
        ("404 Not Found", "Request for unknown model: 'inner' version 7 is not found", 404,
         "Request for unknown model: '{}' version 7 is not found"),
        ("500 Internal Server Error", "Unable to parse 'data': no number", 400,
         "Unable to parse 'data': no number"),
        ("500 Internal Server Error", "it broke", 502, "it broke"),
        ("500 Internal Server Error", "it broke\n\nAt:\n  /x/inner/1/model.py(12): execute\n", 502,
         "it broke"),
        ("500 Internal Server Error", "Failed to open '/models/inner/1/weights'", 502,
         "the model failed"),
        ("500 Internal Server Error", "Failed to increase the shared memory pool size for key"
         " 'triton_python_backend_shm_region_4f50c226-b3d0'", 502, "the model failed"),
        ("400 Bad Request", "no room in /dev/shm", 400, "the model refused the request"),
        ("501 Not Implemented", "decoupled", 400, "decoupled"),
    ],
)  # fmt: skip
async def test_a_servers_refusal_is_told_in_our_names_and_not_where_it_lives(
    ask, gateway, status, said, ours, told
):
    answer, name = await ask(whole({"error": said}, status))
    assert (answer.status_code, answer.json()) == (ours, {"error": told.format(name)})
    (settled,) = gateway.settles()
    assert (settled.status, settled.http_status, settled.cost_nano) == ("error", ours, 0)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["tight", "spaced"])
async def test_the_models_name_is_put_in_once_and_tensors_are_left_alone(ask, separators):
    inside = {"model_name": "inner", "outputs": [{"data": ['"model_name":"inner"', "inner"]}]}
    answer, name = await ask(whole(json.dumps(inside, separators=separators).encode()))
    assert answer.json() == inside | {"model_name": name}


@pytest.mark.parametrize("named", [True, False])
async def test_the_length_of_the_head_is_that_of_the_head_that_is_sent(ask, named):
    head = b'{"model_name":"inner","outputs":[]}' if named else b'{"outputs":[]}'
    tensor = b'\x00"model_name":"inner"\xff'
    answer, name = await ask(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b"
        % (len(head), len(head) + len(tensor), head + tensor)
    )
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:length]).get("model_name") == (name if named else None)
    assert answer.content[length:] == tensor


@pytest.mark.parametrize("length", [b"99", b"x", b"-1"])
async def test_an_answer_whose_head_does_not_fit_is_nobodys_to_read(ask, gateway, length):
    answer, _ = await ask(
        b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %b\r\nContent-Length: 2\r\n\r\n{}"
        % length
    )
    assert answer.status_code == 502
    (settled,) = gateway.settles()
    assert (settled.status, settled.cost_nano) == ("error", 0)


@pytest.mark.parametrize("joined", [True, False])
async def test_what_a_stream_said_before_its_error_arrives_before_it(ask, gateway, joined):
    good, bad = b'data: {"model_name":"inner","N":1}\n\n', b'data: {"error":"for \'inner\'"}\n\n'
    parts = [chunked(good + bad)] if joined else [chunked(good), chunked(bad)]
    answer, name = await ask(HEAD + b"".join(parts) + b"0\r\n\r\n", "generate_stream", {"I": 1})
    assert answer.status_code == 200
    first, second = (json.loads(event[6:]) for event in answer.text.split("\n\n")[:2])
    assert first == {"model_name": name, "N": 1}
    assert second == {"error": f"for '{name}'"}
    (settled,) = gateway.settles()
    assert settled.status == "error"


async def test_a_version_that_is_not_offered_is_not_asked_for(ask):
    answer, name = await ask(b"", "versions/1/infer", at={"version": "2"})
    assert answer.status_code == 404
    assert answer.json()["error"] == f"Request for unknown model: '{name}' version 1 is not found"
