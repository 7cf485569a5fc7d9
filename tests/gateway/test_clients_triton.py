"""NVIDIA's own clients, unmodified: `tritonclient.http`, plain and asyncio. The key is a header."""

import asyncio
import json

import httpx2 as httpx
import numpy as np
import pytest
import tritonclient.http as blocking
import tritonclient.http.aio as nonblocking
from ml_dtypes import bfloat16
from tritonclient.utils import InferenceServerException

from tests.gateway.kinds import SOLD_AS

pytestmark = pytest.mark.django_db(transaction=True)

ARRAYS = {
    "BOOL": np.array([True, False]),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-1, 2**15 - 1], np.int16),
    "INT32": np.array([-1, 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 2**16 - 1], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "FP16": np.array([1.5, -2], np.float16),
    "BF16": np.array([1.5, -2], bfloat16),
    "FP32": np.array([0.1, -1e-30], np.float32),
    "FP64": np.array([0.1, 1e300], np.float64),
    "BYTES": np.array([b"\xc3\xa9", b"", b"a\nb"], np.object_),
}
ONLY_BINARY = {"FP16", "BF16"}  # Triton reads and writes them as bytes alone
NUMBERS = np.arange(6, dtype=np.float32)


@pytest.fixture
def headers(kinds_tenant):
    return {"Authorization": f"Bearer {kinds_tenant.secret}"}


@pytest.fixture
def client(kinds_gateway):
    with blocking.InferenceServerClient(
        kinds_gateway.url.removeprefix("http://"), concurrency=8
    ) as made:
        yield made


@pytest.fixture
async def aio(kinds_gateway):
    async with nonblocking.InferenceServerClient(kinds_gateway.url.removeprefix("http://")) as made:
        yield made


def tensor(array, name="INPUT0", datatype="FP32", binary=True):
    made = blocking.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def wanted(name="OUTPUT0", binary=True, classes=0):
    return blocking.InferRequestedOutput(name, binary_data=binary, class_count=classes)


def pair():
    array = np.arange(8, dtype=np.int32).reshape(2, 4)
    return [tensor(array, f"INPUT{number}", "INT32") for number in range(2)]


def test_what_there_is(client, headers):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "meterplane"
    for sold in SOLD_AS.values():
        assert client.is_model_ready(sold, headers=headers)
        assert client.get_model_metadata(sold, headers=headers)["name"] == sold
    sums = client.get_model_metadata("sums", headers=headers)
    assert sums["versions"] == ["1", "3"]
    assert client.get_model_metadata("sums", "1", headers=headers)["versions"] == ["1"]
    assert sums["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 4]}
    assert client.is_model_ready("sums", "1", headers=headers)
    assert not client.is_model_ready("sums", "2", headers=headers)
    assert not client.is_model_ready("nothing", headers=headers)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_every_datatype_there_and_back(client, headers, kinds_gateway, binary):
    sent = {kind: array for kind, array in ARRAYS.items() if binary or kind not in ONLY_BINARY}
    answer = client.infer(
        "every_kind",
        [tensor(array, f"IN_{kind}", kind, binary) for kind, array in sent.items()],
        outputs=[wanted(f"OUT_{kind}", binary) for kind in sent],
        headers=headers,
        request_id="all of them",
    )
    for kind, array in sent.items():
        got = answer.as_numpy(f"OUT_{kind}")
        if kind == "BYTES" and not binary:
            got = np.array([text.encode() for text in got], np.object_)
        assert np.array_equal(got, array), kind
    assert answer.get_response()["model_name"] == "every_kind"
    assert answer.get_response()["id"] == "all of them"
    (settled,) = kinds_gateway.settles()
    assert (settled.status, settled.rows, settled.requests) == ("ok", 2, 1)
    assert bool(settled.tensor_bytes_in) == bool(settled.tensor_bytes_out) == binary
    if binary:
        assert settled.tensor_bytes_in == settled.tensor_bytes_out


@pytest.mark.parametrize("kind", sorted(ONLY_BINARY))
def test_what_triton_does_not_write_as_json_is_refused_in_its_words(client, headers, kind):
    with pytest.raises(InferenceServerException, match=f"sending {kind} data via JSON") as refused:
        client.infer(
            "every_kind",
            [tensor(ARRAYS[kind], f"IN_{kind}", kind)],
            outputs=[wanted(f"OUT_{kind}", binary=False)],
            headers=headers,
        )
    assert refused.value.status() == "400"


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("returned", [None, "gzip", "deflate"])
def test_compression_both_ways(client, headers, kinds_gateway, sent, returned):
    array = np.tile(NUMBERS, 50_000)  # 1.2 MB: packed beside the loop
    for values, binary in ((NUMBERS, True), (NUMBERS, False), (array, True)):
        answer = client.infer(
            "same-numbers-back",
            [tensor(values)],
            outputs=[wanted(binary=binary)],
            headers=headers,
            request_compression_algorithm=sent,
            response_compression_algorithm=returned,
        )
        assert np.array_equal(answer.as_numpy("OUTPUT0"), values)
    settled = kinds_gateway.settles()[-1]
    assert settled.tensor_bytes_in == settled.tensor_bytes_out == array.nbytes
    assert settled.bytes_in > array.nbytes
    assert (settled.bytes_out < array.nbytes // 10) == (returned is not None)


def test_outputs_are_those_that_are_asked_for(client, headers):
    only = client.infer("sums", pair(), outputs=[wanted("OUTPUT1")], headers=headers)
    assert only.as_numpy("OUTPUT0") is None
    assert not only.as_numpy("OUTPUT1").any()
    both = client.infer("sums", pair(), headers=headers)
    assert np.array_equal(both.as_numpy("OUTPUT0").ravel(), np.arange(8) * 2)
    for version in ("1", "3"):
        answer = client.infer("sums", pair(), model_version=version, headers=headers)
        assert answer.get_response()["model_version"] == version


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_classification_is_tritons(client, headers, kinds_gateway, binary):
    outputs = [wanted("OUTPUT0", binary, classes=2)]
    answer = client.infer("sums", pair(), outputs=outputs, headers=headers)
    classes = [
        str(each, "utf-8") if binary else each for each in answer.as_numpy("OUTPUT0").ravel()
    ]
    assert classes == ["6:3:west", "4:2:south", "14:3:west", "12:2:south"]
    (settled,) = kinds_gateway.settles()
    assert settled.rows == 2


def test_many_at_once(client, headers, kinds_gateway):
    asked = [
        client.async_infer("same-numbers-back", [tensor(NUMBERS + number)], headers=headers)
        for number in range(40)
    ]
    for number, each in enumerate(asked):
        assert np.array_equal(each.get_result().as_numpy("OUTPUT0"), NUMBERS + number)
    assert [settled.status for settled in kinds_gateway.settles()] == ["ok"] * 40


def test_a_body_and_an_answer_made_and_read_apart_from_the_client(headers, kinds_gateway):
    body, json_bytes = blocking.InferenceServerClient.generate_request_body([tensor(NUMBERS)])
    length = "Inference-Header-Content-Length"
    url = f"{kinds_gateway.url}/v2/models/same-numbers-back/infer"
    answer = httpx.post(url, content=body, headers=headers | {length: str(json_bytes)})
    assert answer.headers["content-encoding"] == "gzip"  # what this client says it reads
    result = blocking.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers[length])
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), NUMBERS)


REFUSED = {
    "sequence_id": {"sequence_id": 7, "sequence_start": True},
    "priority": {"priority": 1},
    "timeout": {"timeout": 1_000_000},
    "mine": {"parameters": {"mine": 1}},
}


@pytest.mark.parametrize("named", REFUSED)
def test_a_parameter_that_is_not_on_the_list_is_refused_by_name(client, headers, named):
    with pytest.raises(InferenceServerException, match=named) as refused:
        client.infer("same-numbers-back", [tensor(NUMBERS)], headers=headers, **REFUSED[named])
    assert refused.value.status() == "400"


def test_shared_memory_is_nobodys(client, headers):
    shared = blocking.InferInput("INPUT0", [6], "FP32")
    shared.set_shared_memory("region", 24)
    with pytest.raises(InferenceServerException, match="shared_memory_region"):
        client.infer("same-numbers-back", [shared], headers=headers)
    output = blocking.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("region", 24)
    with pytest.raises(InferenceServerException, match="shared_memory_region"):
        client.infer("same-numbers-back", [tensor(NUMBERS)], outputs=[output], headers=headers)


CONTROL = {
    "load": lambda client, headers: client.load_model("sums", headers=headers),
    "unload": lambda client, headers: client.unload_model("sums", headers=headers),
    "index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "config": lambda client, headers: client.get_model_config("sums", headers=headers),
    "log": lambda client, headers: client.get_log_settings(headers=headers),
    "trace": lambda client, headers: client.get_trace_settings(headers=headers),
    "memory": lambda client, headers: client.get_system_shared_memory_status(headers=headers),
    "cuda": lambda client, headers: client.get_cuda_shared_memory_status(headers=headers),
    "register": lambda client, headers: client.register_system_shared_memory(
        "region", "/key", 24, headers=headers
    ),
}


@pytest.mark.parametrize("call", CONTROL)
def test_the_servers_controls_do_not_exist(client, headers, call):
    with pytest.raises(InferenceServerException, match="nothing at") as refused:
        CONTROL[call](client, headers)
    assert refused.value.status() == "404"


@pytest.mark.parametrize("model", ["sums", ""])
def test_statistics_of_all_tenants_are_refused_with_a_reason(client, headers, model):
    with pytest.raises(InferenceServerException, match="your own are in the portal") as refused:
        client.get_inference_statistics(model, headers=headers)
    assert refused.value.status() == "403"


def test_failures_are_said_so_that_the_client_can_tell(client, headers, kinds_gateway):
    numbers = [tensor(NUMBERS)]
    for ask, status, says in (
        (
            lambda: client.infer("sums", numbers, headers={"Authorization": "Bearer x"}),
            "401",
            "key",
        ),
        (lambda: client.infer("sums", numbers), "401", "missing"),
        (lambda: client.get_model_metadata("sums"), "401", "missing"),
        (lambda: client.infer("nothing", numbers, headers=headers), "404", "'nothing'"),
        (lambda: client.get_model_metadata("nothing", headers=headers), "404", "'nothing'"),
        (lambda: client.get_model_metadata("sums", "2", headers=headers), "404", "version 2"),
        (lambda: client.infer("sums", pair(), "2", headers=headers), "404", "'sums' version 2"),
        (lambda: client.infer("sums", numbers, headers=headers), "400", "INPUT0"),
        (lambda: client.infer("tiny-words", numbers, headers=headers), "400", "generate"),
    ):
        with pytest.raises(InferenceServerException) as failed:
            ask()
        assert failed.value.status() == status
        assert says in failed.value.message()
    # What was refused before it was admitted is no event; what the model refused costs nothing.
    assert [(each.status, each.cost_nano) for each in kinds_gateway.settles()] == [("error", 0)] * 2


def test_a_models_failure_keeps_its_files_to_itself(client, headers):
    broken = tensor(np.array([b"break"], np.object_), "IN_BYTES", "BYTES")
    with pytest.raises(InferenceServerException, match="it broke") as failed:
        client.infer("every_kind", [broken], headers=headers)
    assert failed.value.status() == "502"
    assert "model.py" not in failed.value.message()


async def test_the_asyncio_client_does_all_that_too(aio, headers, kinds_gateway):
    assert await aio.is_server_live()
    assert await aio.is_server_ready()
    assert await aio.is_model_ready("sums", "3", headers=headers)
    assert not await aio.is_model_ready("nothing", headers=headers)
    assert (await aio.get_model_metadata("sums", headers=headers))["name"] == "sums"
    calls = [
        aio.infer(
            "same-numbers-back",
            [tensor(NUMBERS, binary=binary)],
            outputs=[wanted(binary=returned_binary)],
            headers=dict(headers),  # it writes into what it is given
            request_id=f"{sent} {returned}",
            request_compression_algorithm=sent,
            response_compression_algorithm=returned,
        )
        for binary in (True, False)
        for returned_binary in (True, False)
        for sent in (None, "gzip", "deflate")
        for returned in (None, "gzip", "deflate")
    ]
    answers = await asyncio.gather(*calls)
    assert all(np.array_equal(answer.as_numpy("OUTPUT0"), NUMBERS) for answer in answers)
    assert {answer.get_response()["id"] for answer in answers} == {
        f"{sent} {returned}"
        for sent in (None, "gzip", "deflate")
        for returned in (None, "gzip", "deflate")
    }
    for ask, status in (
        (aio.infer("sums", [tensor(NUMBERS)], headers={"Authorization": "Bearer x"}), "401"),
        (aio.infer("nothing", [tensor(NUMBERS)], headers=headers), "404"),
        (aio.infer("sums", pair(), "2", headers=headers), "404"),
        (aio.get_inference_statistics("sums", headers=headers), "403"),
        (aio.load_model("sums", headers=headers), "404"),
    ):
        with pytest.raises(InferenceServerException) as failed:
            await ask
        assert failed.value.status() == status
    assert [s.status for s in kinds_gateway.settles()] == ["ok"] * len(calls) + ["error"]


def test_generate_streams_as_it_comes_and_is_counted(kinds_gateway, kinds_tenant):
    body = {
        "text_input": "Tell me",
        "sampling_parameters": json.dumps({"max_tokens": 9, "seed": 1}),
    }
    events = []
    with (
        kinds_gateway.client(kinds_tenant.secret) as client,
        client.stream(
            "POST", "/v2/models/tiny-words/generate_stream", json=body | {"stream": True}
        ) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert len(events) == 10  # the last says why it ended
    assert {event["model_name"] for event in events} == {"tiny-words"}
    assert not any("num_output_tokens" in event for event in events)
    (settled,) = kinds_gateway.settles()
    assert (settled.tokens_out, settled.provenance, settled.stream) == (9, "engine", True)
    assert settled.surface == "kserve.generate"
