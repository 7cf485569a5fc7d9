"""A busy model over gRPC: the same turns as over HTTP, and the call's deadline bounds the wait."""

import threading

import grpc
import pytest

from tests.conftest import wait_until
from tests.gateway.deployments import let_in, model, new_name, put_on_sale
from tests.gateway_grpc.tensors import floats, infer_stub, message, stream_stub
from tests.gateway_grpc.upstream import response, serving

pytestmark = pytest.mark.django_db(transaction=True)
HTTP = "http://127.0.0.1:9"


@pytest.fixture
def gate():
    """What a server waits at before it answers."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def upstream(gate):
    def infer(upstream, asked, context):
        gate.wait(60)
        answer = response(None).infer_response
        answer.model_name, answer.id = asked.model_name, asked.id
        return answer

    with serving(infer) as made:
        yield made


@pytest.fixture
def sell(transactional_db, redis_url, onboard, tmp_path, upstream):
    """Sell a model of that server; its name, and the metadata of who may use it."""

    def make(**bounds):
        name = new_name()
        to = {"name": "a", "grpc_servers": [upstream.address], "servers": [HTTP], "upstream": name}
        put_on_sale(tmp_path, model(name, "tensor", targets=[to], **bounds))
        return name, [("authorization", f"Bearer {let_in(onboard).secret}")]

    return make


class Asking:
    def __init__(self, gateway, name, metadata):
        self._channel = grpc.insecure_channel(gateway.url)
        self._name = name
        self._metadata = metadata

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def unary(self, timeout_s=30.0):
        return infer_stub(self._channel).future(
            message(self._name, floats(1)), metadata=self._metadata, timeout=timeout_s
        )

    def streamed(self, *names):
        requests = (message(each, floats(1), id=each) for each in names)
        return list(stream_stub(self._channel)(requests, metadata=self._metadata, timeout=30))


def asked(upstream, count):
    wait_until(lambda: upstream.asked >= count, f"{count} requests at the server")


def test_what_does_not_fit_is_unavailable_with_a_time_and_leaves_no_trace(
    gateway, sell, upstream, gate
):
    name, metadata = sell(in_flight_max=1, queue_max=0)
    with Asking(gateway, name, metadata) as asking:
        first = asking.unary()
        asked(upstream, 1)
        shed = asking.unary()
        assert shed.code() is grpc.StatusCode.UNAVAILABLE
        assert "more requests than it can serve" in shed.details()
        assert int(dict(shed.trailing_metadata())["retry-after"]) >= 1
        (answer,) = asking.streamed(name)
        assert "more requests than it can serve" in answer.error_message
        gate.set()
        assert first.result().model_name == name
        assert asking.unary().result().model_name == name
    assert upstream.asked == 2
    assert len(gateway.admits()) == len(gateway.settles()) == 2


def test_who_waits_is_served_in_their_turn(gateway, sell, upstream, gate):
    name, metadata = sell(in_flight_max=1, queue_s_max=30)
    with Asking(gateway, name, metadata) as asking:
        calls = [asking.unary() for _ in range(5)]
        asked(upstream, 1)
        gate.set()
        assert {call.result().model_name for call in calls} == {name}
    assert len(gateway.settles()) == 5


def test_a_call_gives_its_place_up_at_its_deadline(gateway, sell, upstream, gate):
    name, metadata = sell(in_flight_max=1, queue_max=1, queue_s_max=30)
    with Asking(gateway, name, metadata) as asking:
        first = asking.unary()
        asked(upstream, 1)
        hurried = asking.unary(timeout_s=0.5)
        assert hurried.code() in (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,  # told so just in time
        )
        next_one = asking.unary()
        gate.set()
        assert first.result().model_name == next_one.result().model_name == name
    assert upstream.asked == 2
    assert len(gateway.settles()) == 2
