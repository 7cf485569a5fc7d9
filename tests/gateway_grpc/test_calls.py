"""Unary calls by an unmodified tritonclient: answered, refused, metered."""

import queue
import time

import grpc
import httpx2 as httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from meterplane.gateway.readiness import FOUND_FOR_S
from meterplane.policy.hold_to_credit import hold_to_credit
from tests.conftest import free_port, wait_until
from tests.gateway.deployments import limit_rate
from tests.gateway_grpc.tensors import FINAL, SERVICE, floats, infer_stub, message, text
from tests.gateway_grpc.upstream import serving

pytestmark = pytest.mark.django_db(transaction=True)


def refused(call, code, *words):
    with pytest.raises(InferenceServerException) as failure:
        call()
    assert failure.value.status() == f"StatusCode.{code}"
    for word in words:
        assert word in failure.value.message()


def test_tensors_come_back_and_are_one_event(client, gateway, headers):
    answer = client.infer("identity", floats(1, 2, 3), request_id="7", headers=headers)
    assert answer.as_numpy("OUTPUT0").tolist() == [1, 2, 3]
    assert (answer.get_response().id, answer.get_response().model_name) == ("7", "identity")
    (settle,) = gateway.settles()
    assert (settle.surface, settle.status, settle.http_status) == ("grpc.infer", "ok", 200)
    assert (settle.requests, settle.rows, settle.cost_nano) == (1, 3, 10_000)
    assert (settle.tensor_bytes_in, settle.tensor_bytes_out) == (12, 12)
    assert settle.bytes_in > 12
    assert settle.bytes_out > 12
    assert settle.first_byte_ms > 0
    assert settle.compute_us > 0
    assert not settle.stream
    (admit,) = gateway.admits()
    assert admit.request_id == settle.request_id


def test_tags_come_as_metadata_and_are_on_each_message_of_a_stream(client, gateway, headers):
    tagged = headers | {"x-meterplane-tags": "Team=search, run=7"}
    client.infer("identity", floats(1), headers=tagged)
    (settle,) = gateway.settles()
    assert settle.tags == {"team": "search", "run": "7"}
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error), headers=tagged)
    for _ in range(2):
        client.async_stream_infer("identity", floats(1))
    assert [answers.get(timeout=30) for _ in range(2)] == [None, None]
    client.stop_stream()
    assert [each.tags for each in gateway.settles()] == [settle.tags] * 3
    refused(
        lambda: client.infer("identity", floats(1), headers=headers | {"x-meterplane-tags": "x"}),
        "INVALID_ARGUMENT",
        "x-meterplane-tags, entry 1",
    )
    assert len(gateway.admits()) == 3


async def test_the_asyncio_client_works_the_same(gateway, headers):
    async with triton_aio.InferenceServerClient(gateway.url) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("identity", headers=headers)
        answer = await client.infer("identity", floats(4), headers=headers)
    assert answer.as_numpy("OUTPUT0").tolist() == [4]
    assert [settle.status for settle in gateway.settles()] == ["ok"]


def test_typed_contents_are_taken_too(channel, gateway, acme):
    asked = message("identity", floats(1))
    asked.raw_input_contents.pop()
    asked.inputs[0].contents.fp32_contents.append(1.5)
    metadata = [("authorization", f"Bearer {acme.secret}")]
    answer = infer_stub(channel)(asked, metadata=metadata)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1.5]
    assert gateway.settles()[0].tensor_bytes_in > 0


def test_a_model_answers_under_the_name_it_is_sold_by(client, headers):
    answer = client.infer("echo", floats(1), headers=headers)
    assert answer.get_response().model_name == "echo"
    described = client.get_model_metadata("echo", headers=headers)
    assert (described.name, [each.name for each in described.inputs]) == ("echo", ["INPUT0"])


def test_the_server_and_models_are_told_of(client, headers):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "meterplane"
    assert client.is_model_ready("identity", headers=headers)
    assert client.is_model_ready("tiny-lm", "1", headers=headers)
    assert not client.is_model_ready("identity", "9", headers=headers)
    assert client.get_model_metadata("identity", headers=headers).outputs[0].name == "OUTPUT0"
    assert client.get_model_metadata("elsewhere", headers=headers).platform == "openai"
    refused(lambda: client.get_model_metadata("nope", headers=headers), "NOT_FOUND", "nope")
    refused(lambda: client.get_model_metadata("identity"), "UNAUTHENTICATED", "API key")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "missing or mistyped"),
        ({"authorization": "Bearer mp_live_nonsense"}, "missing or mistyped"),
        ({"authorization": "Basic eDp5"}, "missing or mistyped"),
    ],
)
def test_without_a_key_nothing_is_admitted(client, gateway, selling, headers, words):
    refused(lambda: client.infer("identity", floats(1), headers=headers), "UNAUTHENTICATED", words)
    assert gateway.frames() == []


def test_a_revoked_key_is_refused(client, gateway, acme, headers):
    from tenants.keys import revoke_key

    client.infer("identity", floats(1), headers=headers)
    revoke_key(tenant_id=acme.id, key_id=acme.key_id)
    refused(
        lambda: client.infer("identity", floats(1), headers=headers), "UNAUTHENTICATED", "revoked"
    )
    assert len(gateway.settles()) == 1


@pytest.mark.parametrize(
    ("model", "extra", "code", "words"),
    [
        ("nope", {}, "NOT_FOUND", "does not exist or this key may not use it"),
        ("elsewhere", {}, "INVALID_ARGUMENT", "not served here"),
        ("all-minilm-l6-v2", {}, "INVALID_ARGUMENT", "/v1/embeddings"),
        ("identity", {"model_version": "9"}, "NOT_FOUND", "version 9"),
        ("identity", {"model_version": "x"}, "INVALID_ARGUMENT", "version"),
        ("identity", {"priority": 1}, "INVALID_ARGUMENT", "'priority'"),
        ("identity", {"timeout": 5}, "INVALID_ARGUMENT", "'timeout'"),
        ("identity", {"sequence_id": 5}, "INVALID_ARGUMENT", "'sequence_"),
        ("identity", {"parameters": {"x": "y"}}, "INVALID_ARGUMENT", "'x'"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(client, headers, model, extra, code, words):
    refused(lambda: client.infer(model, floats(1), headers=headers, **extra), code, words)


def test_shared_memory_is_refused_on_both_ends(client, gateway, headers):
    tensor = triton_grpc.InferInput("INPUT0", [1], "FP32")
    tensor.set_shared_memory("region", 4)
    refused(
        lambda: client.infer("identity", [tensor], headers=headers),
        "INVALID_ARGUMENT",
        "shared_memory",
    )
    output = triton_grpc.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("region", 4)
    refused(
        lambda: client.infer("identity", floats(1), outputs=[output], headers=headers),
        "INVALID_ARGUMENT",
        "shared_memory",
    )
    assert gateway.frames() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, h: client.get_inference_statistics(headers=h),
        lambda client, h: client.get_model_config("identity", headers=h),
        lambda client, h: client.get_model_repository_index(headers=h),
        lambda client, h: client.load_model("identity", headers=h),
        lambda client, h: client.unload_model("identity", headers=h),
        lambda client, h: client.get_system_shared_memory_status(headers=h),
        lambda client, h: client.register_system_shared_memory("r", "/r", 4, headers=h),
        lambda client, h: client.unregister_cuda_shared_memory(headers=h),
        lambda client, h: client.get_trace_settings(headers=h),
        lambda client, h: client.update_log_settings({}, headers=h),
    ],
)
def test_every_other_method_is_unimplemented(client, headers, ask):
    refused(lambda: ask(client, headers), "UNIMPLEMENTED", "does not exist here")


def test_what_is_no_message_is_the_callers_fault(channel, acme):
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as failure:
        call(b"\xff\xff", metadata=[("authorization", f"Bearer {acme.secret}")])
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_above_the_bound_is_refused(client, gateway, headers):
    with pytest.raises(InferenceServerException) as failure:
        client.infer("identity", floats(*([0.0] * (5 * 2**20))), headers=headers)
    assert failure.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert gateway.frames() == []


def test_a_rate_limit_is_resource_exhausted(client, gateway, selling, onboard):
    tenant = onboard("slow")
    limit_rate(tenant, 1, 1)
    headers = {"authorization": f"Bearer {tenant.secret}"}
    client.infer("identity", floats(1), headers=headers)
    refused(
        lambda: client.infer("identity", floats(1), headers=headers),
        "RESOURCE_EXHAUSTED",
        "limit of 1 request per minute of this organisation",
    )
    assert len(gateway.settles()) == 1


def test_credit_that_does_not_cover_a_request_is_resource_exhausted(
    client, gateway, selling, onboard
):
    tenant = onboard("held")
    hold_to_credit(tenant.id)
    headers = {"authorization": f"Bearer {tenant.secret}"}
    refused(
        lambda: client.infer("identity", floats(1), headers=headers),
        "RESOURCE_EXHAUSTED",
        "does not cover this request: 0 USD of it is left. Have credit added",
    )
    assert gateway.frames() == []


def test_an_answer_tells_its_request_and_the_limits(channel, gateway, acme):
    metadata = [("authorization", f"Bearer {acme.secret}"), ("traceparent", TRACE)]
    _, call = infer_stub(channel).with_call(message("identity", floats(1)), metadata=metadata)
    told = dict(call.trailing_metadata())
    (settle,) = gateway.settles()
    assert told["x-request-id"] == str(settle.request_id)
    assert int(told["x-ratelimit-remaining-requests"]) >= 0
    assert settle.trace_id == TRACE[3:35]


TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def test_a_decoupled_model_is_no_unary_call_here_either(client, gateway, headers):
    refused(
        lambda: client.infer("raw-lm", text("hello", 3), headers=headers),
        "UNIMPLEMENTED",
        "decoupled",
    )
    (settle,) = gateway.settles()
    assert (settle.status, settle.cost_nano) == ("error", 0)


def test_a_call_that_is_too_slow_ends_at_its_deadline_and_settles(start_gateway, silent, acme):
    gateway = start_gateway(TRITON_GRPC_URLS=silent.address)
    headers = {"authorization": f"Bearer {acme.secret}"}
    with triton_grpc.InferenceServerClient(gateway.url) as client:
        refused(
            lambda: client.infer("identity", floats(1), headers=headers, client_timeout=0.4),
            "DEADLINE_EXCEEDED",
        )
    wait_until(lambda: len(gateway.settles()) == 1, "the settlement")
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status, settle.cost_nano) == ("interrupted", 504, 0)
    wait_until(lambda: silent.cancelled == 1, "the server being told", 10)


def test_a_call_that_is_given_up_settles_once_and_frees_the_server(start_gateway, silent, acme):
    gateway = start_gateway(TRITON_GRPC_URLS=silent.address)
    with grpc.insecure_channel(gateway.url) as channel:
        call = infer_stub(channel).future(
            message("identity", floats(1)), metadata=[("authorization", f"Bearer {acme.secret}")]
        )
        wait_until(lambda: silent.asked == 1, "the request reaching the server")
        call.cancel()
        wait_until(lambda: silent.cancelled == 1, "the server being told", 10)
    wait_until(lambda: len(gateway.settles()) == 1, "the settlement")
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status, settle.cost_nano) == ("cancelled", 499, 0)


def test_a_server_that_is_not_there_is_unavailable_and_free(start_gateway, acme):
    gateway = start_gateway(TRITON_GRPC_URLS="127.0.0.1:9")
    headers = {"authorization": f"Bearer {acme.secret}"}
    with triton_grpc.InferenceServerClient(gateway.url) as client:
        refused(lambda: client.infer("identity", floats(1), headers=headers), "UNAVAILABLE")
        assert not client.is_server_ready()
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status, settle.cost_nano) == ("error", 503, 0)


def test_however_many_ask_if_servers_are_ready_a_server_is_asked_four_times_a_second(start_gateway):
    with serving() as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        with triton_grpc.InferenceServerClient(gateway.url) as client:
            began_at = time.monotonic()
            assert all(client.is_server_ready() for _ in range(500))
            seconds = time.monotonic() - began_at
            assert 1 <= upstream.asked_ready <= seconds / FOUND_FOR_S + 1
            before = upstream.asked_ready
            assert all(client.is_server_live() for _ in range(50))
            assert upstream.asked_ready == before, "whether we live is asked of nobody"


def test_another_server_is_asked_when_one_is_not_there(start_gateway, triton, acme):
    gateway = start_gateway(TRITON_GRPC_URLS=f"127.0.0.1:9,{triton.grpc_url}")
    headers = {"authorization": f"Bearer {acme.secret}"}
    with triton_grpc.InferenceServerClient(gateway.url) as client:
        for _ in range(6):
            client.infer("identity", floats(1), headers=headers)
    assert [settle.status for settle in gateway.settles()] == ["ok"] * 6


def test_finals_are_not_marked_on_unary_answers(client, headers):
    answer = client.infer("identity", floats(1), headers=headers)
    assert FINAL not in answer.get_response().parameters


def test_the_operator_reads_its_metrics_and_health(start_gateway, acme):
    port = str(free_port())
    gateway = start_gateway(GATEWAY_METRICS_PORT=port)
    headers = {"authorization": f"Bearer {acme.secret}"}
    with triton_grpc.InferenceServerClient(gateway.url) as client:
        client.infer("identity", floats(1), headers=headers)
        refused(lambda: client.infer("nope", floats(1), headers=headers), "NOT_FOUND")
    operator = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{operator}/healthz").status_code == 200
    assert httpx.get(f"{operator}/readyz").status_code == 200
    told = httpx.get(f"{operator}/metrics").text
    for line in (
        'meterplane_gateway_requests_total{surface="grpc.infer",model="identity",status="200"} 1',
        'meterplane_gateway_refusals_total{surface="grpc",code="model_not_found"} 1',
        "meterplane_gateway_calls_in_flight 0",
        f'meterplane_gateway_grpc_server_healthy{{server="{gateway.settles()[0].server}"}} 1',
    ):
        assert line in told
