"""Unmodified clients against the real gateway in front of the real Triton."""

import math

import httpx2 as httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton_http

NUMBERS = {"name": "INPUT0", "shape": [4], "datatype": "FP32", "data": [1, 2.5, -3, 4e-30]}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sdk(gateway, acme):
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=acme.secret, max_retries=0, timeout=30
    ) as client:
        yield client


def ask(**extra):
    body = {"model": "tiny-lm", "messages": [{"role": "user", "content": "Tell me of budgets"}]}
    return body | {"max_tokens": 20, "seed": 7} | extra


def test_an_embedding_is_real_and_its_tokens_are_the_tokenizers(sdk, gateway):
    answer = sdk.embeddings.create(
        model="all-minilm-l6-v2",
        input=["A man is eating food.", "A man is eating a piece of bread.", "A girl runs."],
        encoding_format="float",
    )
    vectors = [item.embedding for item in answer.data]
    assert [len(vector) for vector in vectors] == [384, 384, 384]
    assert all(math.isclose(sum(x * x for x in v), 1, abs_tol=1e-4) for v in vectors)
    alike, unlike = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:])
    assert alike > 0.7 > 0.3 > unlike
    (settled,) = gateway.settles()
    assert answer.usage.prompt_tokens == settled.tokens_in == 8 + 11 + 6
    assert settled.cost_nano == settled.tokens_in * 20
    assert (settled.status, settled.provenance, settled.rows) == ("ok", "tokenizer", 3)


def test_base64_and_floats_are_the_same_vector(sdk):
    floats = sdk.embeddings.create(
        model="all-minilm-l6-v2", input="the same", encoding_format="float"
    )
    packed = sdk.embeddings.create(model="all-minilm-l6-v2", input="the same")
    assert np.allclose(floats.data[0].embedding, packed.data[0].embedding, atol=1e-6)


def test_a_chat_streams_and_its_usage_is_the_engines(sdk, gateway):
    stream = sdk.chat.completions.create(
        **ask(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == ["length"]
    (settled,) = gateway.settles()
    assert chunks[-1].usage.completion_tokens == settled.tokens_out == 20
    assert chunks[-1].usage.prompt_tokens == settled.tokens_in > 0
    assert settled.cost_nano == settled.tokens_in * 150 + 20 * 600
    assert (settled.status, settled.provenance, settled.stream) == ("ok", "engine", True)


def test_a_plain_chat_says_what_its_stream_says(sdk):
    plain = sdk.chat.completions.create(**ask())
    streamed = sdk.chat.completions.create(**ask(), stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert plain.choices[0].message.content == text
    assert plain.usage.completion_tokens == 20


def test_every_choice_is_counted(sdk, gateway):
    answer = sdk.chat.completions.create(**ask(n=3))
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    (settled,) = gateway.settles()
    assert settled.tokens_out == answer.usage.completion_tokens
    assert 20 < settled.tokens_out <= 60


def test_max_tokens_is_clamped_to_the_models_limit(sdk, gateway):
    sdk.chat.completions.create(**ask(max_tokens=100_000))
    (admitted,) = gateway.admits()
    (settled,) = gateway.settles()
    assert settled.tokens_out <= 1024
    assert settled.cost_nano <= admitted.reserved_nano


def test_models_are_listed(sdk):
    listed = [model.id for model in sdk.models.list()]
    assert listed == ["all-minilm-l6-v2", "identity", "tiny-lm"]


async def test_the_async_client_streams_too(gateway, acme):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=acme.secret) as client:
        stream = await client.chat.completions.create(**ask(), stream=True)
        assert [chunk async for chunk in stream if chunk.choices]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_calls_identity_unmodified(gateway, acme, binary):
    client = triton_http.InferenceServerClient(gateway.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    headers = {"Authorization": f"Bearer {acme.secret}"}
    assert client.is_model_ready("identity", headers=headers)
    numbers = np.arange(5, dtype=np.float32)
    tensor = triton_http.InferInput("INPUT0", [5], "FP32")
    tensor.set_data_from_numpy(numbers, binary_data=binary)
    wanted = [triton_http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
    for compression in (None, "gzip", "deflate"):
        result = client.infer(
            "identity",
            [tensor],
            outputs=wanted,
            headers=headers,
            request_id="mine",
            request_compression_algorithm=compression,
        )
        assert np.array_equal(result.as_numpy("OUTPUT0"), numbers)
        assert result.get_response()["id"] == "mine"
    client.close()
    settled = gateway.settles()
    assert [(s.status, s.requests, s.rows, s.cost_nano) for s in settled] == [
        ("ok", 1, 5, 10_000)
    ] * 3


def test_every_answer_names_its_request(gateway, acme):
    with gateway.client(acme.secret) as client:
        answer = client.post("/v1/chat/completions", json=ask())
    (settled,) = gateway.settles()
    assert answer.headers["x-request-id"] == str(settled.request_id)
    assert answer.headers["x-ratelimit-limit-requests"] == "6000"
    assert int(answer.headers["x-ratelimit-remaining-requests"]) == 199


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [NUMBERS]},
        {"inputs": [NUMBERS], "id": "7", "outputs": [{"name": "OUTPUT0"}]},
        {"inputs": [NUMBERS], "parameters": {"binary_data_output": True}},
        {"inputs": [NUMBERS | {"datatype": "FP64"}]},
    ],
    ids=["plain", "named", "binary out", "wrong type"],
)
def test_the_answer_is_tritons_byte_for_byte(gateway, triton, acme, body):
    path = "/v2/models/identity/infer"
    direct = httpx.post(triton.http_url + path, json=body)
    with gateway.client(acme.secret) as client:
        through = client.post(path, json=body)
    assert through.status_code == direct.status_code
    assert through.content == direct.content
    for name in ("inference-header-content-length", "content-type"):
        assert through.headers.get(name) == direct.headers.get(name)
