"""What a server says over gRPC, as a caller is told it. No I/O."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from meterplane.gateway.kserve_grpc.codes import failure_of
from meterplane.triton.failures import TritonUnavailable

Code = grpc.StatusCode


def told(code: grpc.StatusCode, words: str):
    return failure_of(AioRpcError(code, Metadata(), Metadata(), details=words))


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED])
def test_a_server_that_refuses_our_key_does_not_repeat_it_to_the_caller(code):
    failure = told(code, "Incorrect key sk-upstream-ABC")
    assert (failure.code, failure.status) == ("upstream_credentials_refused", 502)
    assert "sk-upstream-ABC" not in failure.message


def test_a_server_that_cannot_take_a_request_does_not_say_where_it_is():
    failure = told(Code.UNAVAILABLE, "model at /models/llm/1/model.py is not ready")
    assert isinstance(failure, TritonUnavailable)
    assert "/models" not in failure.message
