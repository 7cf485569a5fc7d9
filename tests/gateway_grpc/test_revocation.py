"""Over gRPC too: calls and streams of a key that may not infer any more are ended, and told why."""

import queue
import time

import grpc
import pytest

from tenants.keys import revoke_key
from tenants.standing import set_standing
from tests.conftest import wait_until
from tests.gateway_grpc.tensors import floats, infer_stub, message, stream_stub, text
from tests.gateway_grpc.upstream import response, serving, until_given_up

pytestmark = pytest.mark.django_db(transaction=True)


def keyed(acme):
    return [("authorization", f"Bearer {acme.secret}")]


def three_words(upstream, asked, context):
    for _ in range(3):
        time.sleep(0.01)
        yield response(False, b"word", model_name=asked.model_name, id=asked.id)
    until_given_up(context)


def test_a_call_that_waits_is_ended_and_pays_nothing(start_gateway, silent, acme):
    gateway = start_gateway(TRITON_GRPC_URLS=silent.address)
    with grpc.insecure_channel(gateway.url) as channel:
        call = infer_stub(channel).future(message("identity", floats(1)), metadata=keyed(acme))
        wait_until(lambda: silent.asked == 1, "the server asked")
        revoke_key(tenant_id=acme.id, key_id=acme.key_id)
        with pytest.raises(grpc.RpcError) as refused:
            call.result(timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "was revoked" in refused.value.details()
    wait_until(lambda: silent.cancelled == 1, "the server being told", 10)
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status, settle.cost_nano) == ("interrupted", 401, 0)


def test_each_message_of_a_stream_is_told_and_then_the_stream(start_gateway, acme):
    with serving(stream=three_words) as upstream:
        gateway = start_gateway(TRITON_GRPC_URLS=upstream.address)
        asked = queue.Queue()
        for name in ("1", "2"):
            asked.put(message("raw-lm", text("x", 9), id=name))
        with grpc.insecure_channel(gateway.url) as channel:
            call = stream_stub(channel)(iter(asked.get, None), metadata=keyed(acme))
            for _ in range(6):
                assert next(call).infer_response.outputs
            set_standing(tenant_id=acme.id, standing="suspended", reason="unpaid")
            told: dict[str, str] = {}
            with pytest.raises(grpc.RpcError) as refused:
                told.update((each.infer_response.id, each.error_message) for each in call)
            asked.put(None)
        assert told.keys() == {"1", "2"}
        assert all("suspended (unpaid)" in each for each in told.values())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "suspended (unpaid)" in refused.value.details()
        wait_until(lambda: upstream.cancelled == 2, "the server being told", 10)
    settles = gateway.settles()
    assert [(each.status, each.http_status) for each in settles] == [("interrupted", 403)] * 2


def test_a_stream_that_is_idle_is_ended(channel, gateway, acme):
    asked = queue.Queue()
    asked.put(message("identity", floats(1)))
    call = stream_stub(channel)(iter(asked.get, None), metadata=keyed(acme))
    assert not next(call).error_message
    revoke_key(tenant_id=acme.id, key_id=acme.key_id)
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    asked.put(None)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "was revoked" in refused.value.details()
    assert [each.status for each in gateway.settles()] == ["ok"]
