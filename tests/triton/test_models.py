"""The sample models on a real Triton, through our client and through NVIDIA's."""

import asyncio
import json
import math
import re
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from meterplane.triton.client import TritonClient
from meterplane.triton.generate import EventReader, error_text, failure_of
from meterplane.triton.health import ready
from tests.triton.sources import REPOSITORY, source

CATALOG = json.loads((REPOSITORY.parent / "catalog.json").read_text())["models"]


@pytest.fixture
async def client(triton) -> AsyncIterator[TritonClient]:
    made = TritonClient([triton.http_url])
    yield made
    await made.close()
    await asyncio.sleep(0)


def generate(prompt: str, sampling: object, **flags: bool) -> bytes:
    document = {
        "text_input": prompt,
        "sampling_parameters": sampling if isinstance(sampling, str) else json.dumps(sampling),
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "return_finish_reason": True,
    }
    return json.dumps(document | flags).encode()


async def whole(client: TritonClient, body: bytes) -> tuple[int, dict[str, Any]]:
    answer = await client.request("POST", "/v2/models/tiny-lm/generate", body)
    return answer.status, json.loads(answer.body)


async def streamed(client: TritonClient, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    reader = EventReader()
    events = []
    async with client.stream("POST", "/v2/models/tiny-lm/generate_stream", body) as upstream:
        async for chunk in upstream.chunks():
            events += reader.feed(chunk)
    reader.finish()
    return upstream.status, events


async def test_every_model_of_the_catalog_is_there_and_ready(client):
    assert await ready(client)
    assert [await ready(client, each["upstream"]) for each in CATALOG] == [True] * len(CATALOG)
    assert {each["upstream"] for each in CATALOG} == {
        path.name for path in REPOSITORY.iterdir() if path.is_dir()
    }
    assert not await ready(client, "no-such-model")


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry["name"])
def test_prices_are_exact_in_the_ledgers_unit(entry):
    """A unit price is a whole number of pico; anything finer would be rounded in secret."""
    units = {"input_token", "output_token", "request"}
    assert set(entry["prices"]) - {"batch_multiplier"} == units
    batch = Decimal(entry["prices"].get("batch_multiplier", "1"))
    assert 0 < batch <= 1
    for unit in units:
        price = entry["prices"][unit]
        assert isinstance(price, str)
        for pico in (Decimal(price) * 10**12, Decimal(price) * batch * 10**12):
            assert pico == pico.to_integral_value() >= 0
    assert any(Decimal(entry["prices"][unit]) > 0 for unit in units)


async def test_requests_share_one_connection(client):
    for _ in range(3):
        await client.request("GET", "/v2/health/ready")
        await streamed(client, generate("hi", {"max_tokens": 2}, stream=True))
    assert client.fleet.snapshot()[0].idle_connections == 1


async def test_embeddings_come_binary_with_a_count_for_each_text(client):
    texts = ["hello", "hello world", "GPU " * 400]
    request = {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [3], "data": texts}],
        "outputs": [
            {"name": "EMBEDDING", "parameters": {"binary_data": True}},
            {"name": "TOKENS", "parameters": {"binary_data": False}},
        ],
    }
    answer = await client.request(
        "POST", "/v2/models/all-minilm-l6-v2/infer", json.dumps(request).encode()
    )
    split = int(answer.headers[b"inference-header-content-length"])
    outputs = {each["name"]: each for each in json.loads(answer.body[:split])["outputs"]}
    assert answer.status == 200
    assert outputs["TOKENS"]["data"] == [3, 4, 256]
    assert outputs["EMBEDDING"]["shape"] == [3, 384]
    vectors = list(struct.iter_unpack("<384f", answer.body[split:]))
    assert [math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in vectors] == [True] * 3


async def test_texts_that_are_not_text_are_refused(triton):
    def ask(texts: list[bytes]) -> None:
        with tritonclient.http.InferenceServerClient(triton.http_url[7:]) as nvidia:
            given = tritonclient.http.InferInput("TEXT", [len(texts)], "BYTES")
            given.set_data_from_numpy(np.array(texts, dtype=np.object_))
            nvidia.infer("all-minilm-l6-v2", [given])

    with pytest.raises(tritonclient.utils.InferenceServerException, match="UTF-8"):
        await asyncio.to_thread(ask, [b"\xff\xfe"])
    with pytest.raises(tritonclient.utils.InferenceServerException, match="1 to 2048"):
        await asyncio.to_thread(ask, [b"x"] * 2049)


@pytest.mark.parametrize("sequences", [1, 3])
async def test_a_stream_adds_up_to_what_a_whole_answer_says(client, sequences):
    sampling = {"max_tokens": 40, "seed": 11, "n": sequences}
    _, answer = await whole(client, generate("budgets", sampling, exclude_input_in_output=True))
    status, events = await streamed(client, generate("budgets", sampling, stream=True))

    def column(event: dict[str, Any], name: str) -> list[Any]:
        return event[name] if isinstance(event[name], list) else [event[name]]

    assert status == 200
    for index in range(sequences):
        pieces = [column(event, "text_output")[index] for event in events]
        counts = [column(event, "num_output_tokens")[index] for event in events]
        assert "".join(pieces) == column(answer, "text_output")[index]
        assert sum(counts) == column(answer, "num_output_tokens")[index]
        assert max(counts) == 1
        assert column(events[-1], "finish_reason")[index] in ("stop", "length")
    assert {event["num_input_tokens"] for event in events} == {answer["num_input_tokens"]}


async def test_the_counts_on_the_wire_are_the_tokenizers(client):
    generator = source("tiny-lm", "generator").Generator(REPOSITORY / "tiny-lm/1/corpus.txt")
    prompt = "Tell me what a zebra pays."
    _, answer = await whole(
        client, generate(prompt, {"max_tokens": 50, "seed": 2}, exclude_input_in_output=True)
    )
    assert answer["num_input_tokens"] == generator.count(prompt)
    assert answer["num_output_tokens"] == generator.count(answer["text_output"])


async def test_counts_and_reason_come_only_when_asked_for(client):
    body = json.dumps({"text_input": "hi", "sampling_parameters": '{"max_tokens":3}'}).encode()
    _, answer = await whole(client, body)
    assert answer.keys() == {"model_name", "model_version", "text_output"}


async def test_without_a_stream_the_prompt_comes_first_unless_excluded(client):
    sampling = {"max_tokens": 5, "seed": 3}
    _, with_prompt = await whole(client, generate("Budgets? ", sampling))
    _, without = await whole(client, generate("Budgets? ", sampling, exclude_input_in_output=True))
    assert with_prompt["text_output"] == "Budgets? " + without["text_output"]


@pytest.mark.parametrize(
    ("sampling", "flags", "complaint"),
    [
        ({"max_tokens": 0}, {}, "max_tokens"),
        ({"temperature": 9}, {}, "temperature"),
        ({"invented": 1}, {}, "invented"),
        ("{", {}, "not JSON"),
        ({}, {"exclude_input_in_output": False}, "exclude_input_in_output"),
    ],
)
async def test_bad_parameters_are_refused_with_their_name(client, sampling, flags, complaint):
    status, events = await streamed(client, generate("hi", sampling, stream=True, **flags))
    assert status == 400
    assert complaint in str(failure_of(events[0]))
    if not flags:
        answer = await client.request(
            "POST", "/v2/models/tiny-lm/generate", generate("hi", sampling)
        )
        assert answer.status == 400
        assert complaint in error_text(answer.body)


async def test_a_stream_is_seen_while_it_is_written(client):
    begun = time.monotonic()
    arrivals = []
    body = generate("hi", {"max_tokens": 50, "ignore_eos": True}, stream=True)
    async with client.stream("POST", "/v2/models/tiny-lm/generate_stream", body) as upstream:
        arrivals += [time.monotonic() async for _ in upstream.chunks()]
    assert arrivals[0] - begun < (arrivals[-1] - begun) / 2
    assert len(arrivals) > 10


@pytest.fixture
async def engine_tokens(triton) -> AsyncIterator[Callable[[], Awaitable[tuple[int, int]]]]:
    """Prompt and generated tokens, as the server's metrics count them: what was computed."""
    metrics = TritonClient([triton.metrics_url.removesuffix("/metrics")])

    async def read() -> tuple[int, int]:
        text = (await metrics.request("GET", "/metrics")).body.decode()
        found = dict(re.findall(r"^vllm:(\w+)_tokens_total{.*tiny-lm.*} (\d+)", text, re.MULTILINE))
        return int(found["prompt"]), int(found["generation"])

    yield read
    await metrics.close()
    await asyncio.sleep(0)


async def test_the_engine_counts_what_the_answers_say(client, engine_tokens):
    before = await engine_tokens()
    bodies = [generate(f"budgets {i}", {"max_tokens": 30, "n": 2}) for i in range(16)]
    answers = [answer for _, answer in await asyncio.gather(*(whole(client, b) for b in bodies))]
    _, events = await streamed(client, generate("streams", {"max_tokens": 30}, stream=True))
    after = await engine_tokens()
    tokens_in = events[0]["num_input_tokens"] + sum(each["num_input_tokens"] for each in answers)
    tokens_out = sum(event["num_output_tokens"] for event in events)
    tokens_out += sum(sum(each["num_output_tokens"]) for each in answers)
    assert (after[0] - before[0], after[1] - before[1]) == (tokens_in, tokens_out)


async def test_leaving_a_stream_stops_the_generation(client, engine_tokens):
    """4,096 tokens at 4 ms would take 16 s, and be computed for nobody."""
    before = await engine_tokens()
    body = generate("hi", {"max_tokens": 4096, "ignore_eos": True}, stream=True)
    async with client.stream("POST", "/v2/models/tiny-lm/generate_stream", body) as upstream:
        async for _ in upstream.chunks():
            break
        await asyncio.sleep(0.1)
        assert await engine_tokens() == before  # it still generates
    left = time.monotonic()
    while (now := await engine_tokens()) == before:
        assert time.monotonic() - left < 5, "the generation went on"
        await asyncio.sleep(0.05)
    assert 1 <= now[1] - before[1] < 1000


@pytest.mark.parametrize("binary", [True, False])
async def test_identity_gives_back_what_nvidias_client_sends(triton, binary):
    def ask() -> np.ndarray:
        sent = np.arange(1000, dtype=np.float32) / 7
        with tritonclient.http.InferenceServerClient(triton.http_url[7:]) as nvidia:
            given = tritonclient.http.InferInput("INPUT0", [1000], "FP32")
            given.set_data_from_numpy(sent, binary_data=binary)
            wanted = tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=binary)
            got = nvidia.infer("identity", [given], outputs=[wanted]).as_numpy("OUTPUT0")
        assert np.array_equal(got, sent)
        return sent

    sent = await asyncio.to_thread(ask)
    assert sent.size == 1000


async def test_tensors_pass_our_client_byte_for_byte(client):
    """Also larger than any buffer on the way."""
    tensor = struct.pack("<f", 1.5) * 1_000_000
    head = {
        "inputs": [
            {
                "name": "INPUT0",
                "datatype": "FP32",
                "shape": [1_000_000],
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    prefix = json.dumps(head).encode()
    headers = {"inference-header-content-length": str(len(prefix))}
    answer = await client.request("POST", "/v2/models/identity/infer", prefix + tensor, headers)
    split = int(answer.headers[b"inference-header-content-length"])
    assert answer.status == 200
    assert answer.body[split:] == tensor
