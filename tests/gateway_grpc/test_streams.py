"""Streams: decoupled models, order, one event for each message, and every way a stream can end."""

import asyncio
import contextlib
import queue
import time

import grpc
import httpx2 as httpx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.conftest import free_port, wait_until
from tests.gateway_grpc.tensors import (
    ENABLE_FINAL,
    FINAL,
    floats,
    message,
    stream_stub,
    text,
)
from tests.gateway_grpc.upstream import response, serving, until_given_up

pytestmark = pytest.mark.django_db(transaction=True)


class Heard:
    """What a tritonclient's stream calls back with."""

    def __init__(self):
        self.answers = queue.Queue()

    def __call__(self, result, error):
        self.answers.put((result, error))

    def next(self):
        return self.answers.get(timeout=20)


def is_final(result):
    return result.get_response().parameters[FINAL].bool_param


def keyed(acme):
    return [("authorization", f"Bearer {acme.secret}")]


@pytest.mark.parametrize("model", ["tiny-lm", "raw-lm"])
def test_a_decoupled_model_streams_and_its_end_is_told_to_who_asks(client, gateway, headers, model):
    heard = Heard()
    client.start_stream(heard, headers=headers)
    client.async_stream_infer(
        model, text("hello", 5), request_id="a", enable_empty_final_response=True
    )
    words = []
    while True:
        result, error = heard.next()
        assert error is None
        assert result.get_response().id == "a"
        assert result.get_response().model_name == model
        if is_final(result):
            assert not result.get_response().outputs
            break
        words.append(result.as_numpy("text_output")[0])
    client.stop_stream()
    assert len(words) == 6  # and an empty one, with the reason why it ends
    (settle,) = gateway.settles()
    assert (settle.surface, settle.status, settle.stream) == ("grpc.stream_infer", "ok", True)
    assert settle.requests == 1
    assert settle.first_byte_ms > 0


def test_the_end_is_not_told_to_who_did_not_ask(channel, gateway, acme):
    answers = list(
        stream_stub(channel)(iter([message("raw-lm", text("hello", 3))]), metadata=keyed(acme))
    )
    assert len(answers) == 4
    assert all(each.infer_response.outputs for each in answers)
    assert [settle.status for settle in gateway.settles()] == ["ok"]


def test_a_text_engine_is_billed_by_its_tokens_and_its_counts_stay_ours(channel, gateway, acme):
    (first, *_) = answers = list(
        stream_stub(channel)(
            iter([message("tiny-lm", text("hello there", 7))]), metadata=keyed(acme)
        )
    )
    assert [each.name for each in first.infer_response.outputs] == ["text_output"]
    assert all(
        len(each.infer_response.raw_output_contents) == len(each.infer_response.outputs)
        for each in answers
    )
    (settle,) = gateway.settles()
    assert (settle.tokens_out, settle.provenance) == (7, "engine")
    assert settle.tokens_in > 0
    assert settle.cost_nano == settle.tokens_in * 150 + 7 * 600


def test_counts_are_given_to_who_asks_for_them(channel, gateway, acme):
    asked = message("tiny-lm", text("hello", 2))
    for name in ("return_num_input_tokens", "return_num_output_tokens"):
        asked.inputs.add(name=name, datatype="BOOL", shape=[1])
        asked.raw_input_contents.append(b"\x01")
    (first, *_) = stream_stub(channel)(iter([asked]), metadata=keyed(acme))
    assert {each.name for each in first.infer_response.outputs} == {
        "text_output",
        "num_input_tokens",
        "num_output_tokens",
    }
    asked = message("tiny-lm", text("hello", 2))
    asked.outputs.add(name="finish_reason")
    (first, *_) = stream_stub(channel)(iter([asked]), metadata=keyed(acme))
    assert {each.name for each in first.infer_response.outputs} <= {"finish_reason"}
    assert [settle.tokens_out for settle in gateway.settles()] == [2, 2]


def test_a_text_engine_is_never_asked_for_more_than_its_model_may_make(channel, gateway, acme):
    asked = message("tiny-lm", text("x", 10_000_000))
    del asked.inputs[2]
    del asked.raw_input_contents[2]
    answers = list(stream_stub(channel)(iter([asked]), metadata=keyed(acme)))
    (settle,) = gateway.settles()
    assert settle.tokens_out <= 256
    assert answers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.inputs.add(name="surprise", datatype="BOOL", shape=[1]), "raw contents"),
        (lambda m: setattr(m.inputs[1], "name", "surprise"), "'surprise'"),
        (lambda m: setattr(m.inputs[0], "name", "prompt"), "'prompt'"),
        (lambda m: setattr(m.inputs[0], "datatype", "FP32"), "text_input"),
        (lambda m: m.raw_input_contents.__setitem__(0, b"\xff\xff\xff\xff"), "text_input"),
        (lambda m: m.raw_input_contents.__setitem__(0, b"\x01\x00\x00\x00\xff"), "text_input"),
        (lambda m: m.raw_input_contents.__setitem__(0, b""), "text_input"),
        (lambda m: m.raw_input_contents.__setitem__(2, b"\x03\x00\x00\x00{x}"), "sampling"),
        (lambda m: m.inputs.append(m.inputs[0]), "raw contents"),
        (lambda m: m.ClearField("inputs"), "inputs"),
    ],
)
def test_what_a_text_engine_must_not_be_told_is_refused_by_name(
    channel, gateway, acme, change, words
):
    asked = message("tiny-lm", text("x", 2), id="7")
    change(asked)
    (answer,) = stream_stub(channel)(iter([asked]), metadata=keyed(acme))
    assert words in answer.error_message
    assert answer.infer_response.id == "7"
    assert gateway.frames() == []


def test_each_message_is_one_event_and_a_failure_ends_only_its_own(channel, gateway, acme):
    asked = [
        message("identity", floats(1), id="1"),
        message("nope", floats(2), id="2"),
        message("identity", floats(3), id="3", model_version="9"),
        message("identity", floats(4), id="4"),
    ]
    asked[3].parameters["priority"].int64_param = 1
    asked.append(message("identity", floats(5), id="5"))
    answers = list(stream_stub(channel)(iter(asked), metadata=keyed(acme)))
    assert [each.infer_response.id for each in answers] == ["1", "2", "3", "4", "5"]
    errors = [each.error_message for each in answers]
    assert errors[0] == errors[4] == ""
    assert "does not exist or this key may not use it" in errors[1]
    assert "version 9 is not found" in errors[2]
    assert "'priority'" in errors[3]
    assert [settle.status for settle in gateway.settles()].count("ok") == 2
    assert len(gateway.settles()) == len(gateway.admits()) == 3


def test_answers_of_plain_models_come_in_the_order_they_were_asked_for(channel, gateway, acme):
    asked = [message("identity", floats(n), id=str(n)) for n in range(200)]
    answers = list(stream_stub(channel)(iter(asked), metadata=keyed(acme)))
    assert [each.infer_response.id for each in answers] == [str(n) for n in range(200)]
    assert len(gateway.settles()) == 200
    assert len({settle.request_id for settle in gateway.settles()}) == 200


def test_decoupled_answers_do_not_wait_for_each_other(channel, acme):
    asked = [message("raw-lm", text("a", 200), id="long"), message("raw-lm", text("b", 2), id="b")]
    ids = [
        each.infer_response.id for each in stream_stub(channel)(iter(asked), metadata=keyed(acme))
    ]
    last_of_b = max(place for place, name in enumerate(ids) if name == "b")
    assert last_of_b < len(ids) - 50


@pytest.mark.parametrize(
    ("secret", "code"), [("", "UNAUTHENTICATED"), ("Bearer mp_live_x", "UNAUTHENTICATED")]
)
def test_a_stream_without_a_key_is_refused_as_a_whole(channel, gateway, selling, secret, code):
    metadata = [("authorization", secret)] if secret else []
    with pytest.raises(grpc.RpcError) as failure:
        list(stream_stub(channel)(iter([message("identity", floats(1))]), metadata=metadata))
    assert failure.value.code().name == code
    assert gateway.frames() == []


def test_a_key_that_is_revoked_while_its_stream_is_open_is_refused_at_once(
    client, gateway, acme, headers
):
    from tenants.keys import revoke_key

    heard = Heard()
    client.start_stream(heard, headers=headers)
    client.async_stream_infer("identity", floats(1))
    assert heard.next()[1] is None
    revoke_key(tenant_id=acme.id, key_id=acme.key_id)
    client.async_stream_infer("identity", floats(1))
    result, error = heard.next()
    assert result is None
    assert "revoked" in error.message()  # the message, or by chance already the stream
    client.stop_stream()
    assert len(gateway.settles()) == 1


async def test_the_asyncio_client_streams(gateway, headers):
    async def requests():
        for n in range(3):
            yield {"model_name": "identity", "inputs": floats(n), "request_id": str(n)}
        yield {"model_name": "raw-lm", "inputs": text("x", 4)}

    found = []
    async with triton_aio.InferenceServerClient(gateway.url) as client:
        async for result, error in client.stream_infer(requests(), headers=headers):
            assert error is None
            found.append(result.get_response())
    assert [each.id for each in found if each.model_name == "identity"] == ["0", "1", "2"]
    assert [each.model_name for each in found].count("raw-lm") == 5
    assert [settle.status for settle in gateway.settles()] == ["ok"] * 4


@pytest.mark.parametrize("model", ["tiny-lm", "raw-lm"])
def test_a_stream_that_is_cancelled_is_settled_for_what_was_made(client, gateway, headers, model):
    heard = Heard()
    client.start_stream(heard, headers=headers)
    client.async_stream_infer(model, text("x", 1000))
    for _ in range(5):
        assert heard.next()[1] is None
    client.stop_stream(cancel_requests=True)
    wait_until(lambda: len(gateway.settles()) == 1, "the settlement")
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status, settle.requests) == ("cancelled", 499, 1)
    if model == "tiny-lm":
        assert 5 <= settle.tokens_out < 900
        assert settle.cost_nano >= settle.tokens_out * 600


def test_a_stream_ends_at_its_deadline_and_is_settled(client, gateway, headers):
    for streams in range(1, 6):
        heard = Heard()
        client.start_stream(heard, stream_timeout=1.0, headers=headers)
        client.async_stream_infer("tiny-lm", text("x", 1000))
        while (failed := heard.next()[1]) is None:
            pass
        assert isinstance(failed, InferenceServerException)
        assert "Deadline" in failed.message()
        wait_until(lambda streams=streams: len(gateway.settles()) == streams, "the settlement")
        settle = gateway.settles()[-1]
        assert settle.tokens_out > 0
        client.stop_stream(cancel_requests=True)
        # On a busy machine a call is underway for so long that its caller's clock ends it for us.
        if (settle.status, settle.http_status) != ("cancelled", 499):
            break
    assert (settle.status, settle.http_status) == ("interrupted", 504)


def words(count, pause_s=0.01):
    def stream(upstream, asked, context):
        for _ in range(count):
            time.sleep(pause_s)
            yield response(False, b"word", model_name=asked.model_name, id=asked.id)
        until_given_up(context)

    return stream


def test_cancelling_reaches_the_server(start_gateway, acme):
    with serving(stream=words(3)) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        with grpc.insecure_channel(gateway.url) as channel:
            call = stream_stub(channel)(
                iter([message("raw-lm", text("x", 9))]), metadata=keyed(acme)
            )
            for _ in range(3):
                next(call)
            call.cancel()
            wait_until(lambda: upstream.cancelled == 1, "the server being told", 10)
        wait_until(lambda: len(gateway.settles()) == 1, "the settlement")


def test_a_server_that_dies_in_the_middle_ends_its_message_and_not_the_stream(
    start_gateway, triton, acme
):
    with serving(stream=words(3)) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        asked = queue.Queue()
        asked.put(message("raw-lm", text("x", 9), id="1"))
        with grpc.insecure_channel(gateway.url) as channel:
            call = stream_stub(channel)(iter(asked.get, None), metadata=keyed(acme))
            for _ in range(3):
                assert not next(call).error_message
            upstream.server.stop(0)
            failed = next(call)
            assert "server" in failed.error_message
            assert failed.infer_response.id == "1"
            asked.put(message("raw-lm", text("x", 9), id="2"))
            again = next(call)
            assert again.infer_response.id == "2"
            assert "cannot be reached" in again.error_message
            asked.put(None)
            assert list(call) == []
    first, second = gateway.settles()
    assert (first.status, first.http_status, first.cost_nano) == ("error", 502, 0)
    assert (second.status, second.http_status, second.cost_nano) == ("error", 503, 0)


def test_a_server_that_marks_no_end_is_followed_to_its_own(start_gateway, acme):
    def stream(upstream, asked, context):
        assert asked.parameters[ENABLE_FINAL].bool_param
        yield response(None, b"a", id=asked.id)
        yield response(None, b"b", id=asked.id)

    with serving(stream=stream) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        with grpc.insecure_channel(gateway.url) as channel:
            asked = iter([message("raw-lm", text("x", 9), id="1")])
            answers = list(stream_stub(channel)(asked, metadata=keyed(acme)))
    assert [each.infer_response.raw_output_contents[0][4:] for each in answers] == [b"a", b"b"]
    assert [settle.status for settle in gateway.settles()] == ["ok"]


def test_a_text_engine_that_reports_no_counts_is_not_served(start_gateway, acme):
    def stream(upstream, asked, context):
        yield response(False, b"for nothing", id=asked.id)
        yield response(True, id=asked.id)

    with serving(stream=stream) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        with grpc.insecure_channel(gateway.url) as channel:
            asked = iter([message("tiny-lm", text("x", 9), id="1")])
            (answer,) = stream_stub(channel)(asked, metadata=keyed(acme))
    assert "token counts" in answer.error_message
    (settle,) = gateway.settles()
    assert (settle.status, settle.cost_nano) == ("error", 0)


def test_an_error_after_answers_is_passed_on_with_its_end(channel, gateway, acme):
    asked = message("raw-lm", text("x", 2), id="7")
    asked.raw_input_contents[2] = b"\x04\x00\x00\x00{bad"
    asked.parameters[ENABLE_FINAL].bool_param = True
    failed, end = stream_stub(channel)(iter([asked]), metadata=keyed(acme))
    assert "sampling_parameters is not JSON" in failed.error_message
    assert end.infer_response.parameters[FINAL].bool_param
    assert end.infer_response.id == failed.infer_response.id == "7"
    assert (gateway.settles()[0].status, gateway.settles()[0].cost_nano) == ("error", 0)


def test_more_messages_than_may_run_at_once_wait_their_turn(start_gateway, acme):
    def stream(upstream, asked, context):
        time.sleep(0.02)
        yield response(True, b"x", id=asked.id)

    with serving(stream=stream) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        with grpc.insecure_channel(gateway.url) as channel:
            asked = iter([message("raw-lm", text("x", 9), id=str(n)) for n in range(150)])
            answers = list(stream_stub(channel)(asked, metadata=keyed(acme)))
    assert [each.infer_response.id for each in answers] == [str(n) for n in range(150)]
    assert len(gateway.settles()) == 150


async def test_sigterm_lets_a_stream_end_and_seals_the_journal(start_gateway, acme):
    gateway = start_gateway()
    async with grpc.aio.insecure_channel(gateway.url) as channel:
        call = stream_stub(channel)(iter([message("tiny-lm", text("x", 60))]), metadata=keyed(acme))
        answers = []
        async for each in call:
            answers.append(each)
            if len(answers) == 3:
                gateway.process.terminate()
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    (settle,) = gateway.settles()
    assert (settle.status, settle.tokens_out) == ("ok", 60)
    assert list(gateway.journal.rglob("*.sealed"))
    assert not list(gateway.journal.rglob("*.open"))


IMPATIENT = (
    "import meterplane.gateway.kserve_grpc.__main__ as m; m.DRAIN_S = 0.2;"
    " raise SystemExit(m.main())"
)


async def remaining(call):
    count = 0
    while await call.read() is not grpc.aio.EOF:
        count += 1
    return count


async def test_what_the_drain_cuts_is_settled_for_what_was_made(start_gateway, acme):
    gateway = start_gateway(program=["-c", IMPATIENT])
    async with grpc.aio.insecure_channel(gateway.url) as channel:
        call = stream_stub(channel)(
            iter([message("tiny-lm", text("x", 1000))]), metadata=keyed(acme)
        )
        for _ in range(3):
            await call.read()
        gateway.process.terminate()
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await remaining(call)
    assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    (settle,) = gateway.settles()
    assert settle.status == "cancelled"
    assert 3 <= settle.tokens_out < 1000
    assert not list(gateway.journal.rglob("*.open"))


def test_kill_9_loses_no_message_whose_answer_was_seen(start_gateway, acme):
    gateway = start_gateway()
    seen = 0
    with grpc.insecure_channel(gateway.url) as channel:
        asked = (message("identity", floats(n), id=str(n)) for n in range(100_000))
        with contextlib.suppress(grpc.RpcError):
            for answer in stream_stub(channel)(asked, metadata=keyed(acme)):
                seen += not answer.error_message
                if seen == 200:
                    gateway.process.kill()
    gateway.process.wait(30)
    assert 200 <= seen <= len(gateway.settles())
    assert len({settle.request_id for settle in gateway.settles()}) == len(gateway.settles())


def test_a_client_that_keeps_a_stream_open_does_not_delay_others(client, gateway, headers):
    heard = Heard()
    client.start_stream(heard, headers=headers)
    client.async_stream_infer("raw-lm", text("x", 300))
    with triton_grpc.InferenceServerClient(gateway.url) as other:
        began = time.monotonic()
        other.infer("identity", floats(1), headers=headers)
        assert time.monotonic() - began < 5
    client.stop_stream(cancel_requests=True)


HURRIED = (
    "import meterplane.gateway.kserve_grpc.__main__ as m;"
    " import meterplane.gateway.kserve_grpc.conversation as c;"
    " import meterplane.gateway.kserve_grpc.service as s;"
    " c.IDLE_S_MAX = c.SLOW_READER_S_MAX = 0.5; s.ABORT_S_MAX = 2.0; raise SystemExit(m.main())"
)


def test_a_stream_on_which_nothing_is_asked_is_ended(start_gateway, acme):
    gateway = start_gateway(program=["-c", HURRIED])
    asked = queue.Queue()
    asked.put(message("identity", floats(1)))
    with grpc.insecure_channel(gateway.url) as channel:
        call = stream_stub(channel)(iter(asked.get, None), metadata=keyed(acme))
        assert not next(call).error_message
        with pytest.raises(grpc.RpcError) as failure:
            next(call)
        asked.put(None)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "Nothing was asked for" in failure.value.details()


@pytest.mark.parametrize("reads_on", [True, False])
def test_a_caller_who_stops_reading_holds_the_server_back_and_is_cut(start_gateway, acme, reads_on):
    sent, port = [], str(free_port())

    def in_flight():
        return "calls_in_flight 0\n" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text

    def stream(upstream, asked, context):
        while context.is_active() and len(sent) < 400:
            sent.append(1)
            yield response(False, bytes(2**20), id=asked.id)

    with serving(stream=stream) as upstream:
        variables = {"TRITON_GRPC_URLS": upstream.address, "GATEWAY_METRICS_PORT": port}
        gateway = start_gateway(program=["-c", HURRIED], **variables)
        with grpc.insecure_channel(gateway.url) as channel:
            call = stream_stub(channel)(
                iter([message("raw-lm", text("x", 9))]), metadata=keyed(acme)
            )
            assert not next(call).error_message
            wait_until(lambda: len(gateway.settles()) == 1, "the caller being cut")
            if reads_on:
                with pytest.raises(grpc.RpcError) as failure:
                    list(call)
                assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert "were not taken" in failure.value.details()
            wait_until(lambda: not in_flight(), "the call being over")
            call.cancel()
    (settle,) = gateway.settles()
    assert settle.status == "cancelled"
    assert len(sent) < 100  # megabytes: what the windows of two connections hold
