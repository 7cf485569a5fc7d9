"""A text engine's outputs that measure nothing are passed on as they came, and are no failure."""

import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from meterplane.gateway.kserve_grpc import text_tensors
from meterplane.gateway.kserve_grpc.messages import CLASSES
from meterplane.kernel.errors import CallerError
from tests.gateway.deployments import let_in, model, new_name, put_on_sale
from tests.gateway_grpc.tensors import infer_stub, message, stream_stub, text
from tests.gateway_grpc.upstream import serving

HTTP = "http://127.0.0.1:9"
LOG_PROBS = struct.pack("<65f", *[0.5] * 65)


def answered(asked):
    """What TensorRT-LLM answers to who asks for log probabilities: one for each token."""
    made = pb.ModelInferResponse(model_name=asked.model_name, id=asked.id)
    for name, datatype, shape, content in (
        ("text_output", "BYTES", [1], b"\x02\0\0\0hi"),
        ("num_input_tokens", "INT32", [1], struct.pack("<i", 4)),
        ("output_log_probs", "FP32", [1, 1, 65], LOG_PROBS),
        ("context_logits", "BF16", [3], b"\0" * 6),
        ("num_output_tokens", "INT32", [1], struct.pack("<i", 65)),
    ):
        made.outputs.add(name=name, datatype=datatype, shape=shape)
        made.raw_output_contents.append(content)
    return made


def unary(upstream, asked, context):
    return answered(asked)


def streamed(upstream, asked, context):
    made = pb.ModelStreamInferResponse(infer_response=answered(asked))
    made.infer_response.parameters["triton_final_response"].bool_param = True
    yield made


@pytest.mark.django_db(transaction=True)
def test_log_probabilities_of_many_tokens_are_passed_on_and_the_answer_is_paid(
    start_gateway, redis_url, onboard, tmp_path
):
    with serving(unary, streamed) as upstream:
        name = new_name()
        to = {"name": "a", "grpc_servers": [upstream.address], "servers": [HTTP], "upstream": "x"}
        put_on_sale(tmp_path, model(name, "tensorrtllm", targets=[to]))
        metadata = [("authorization", f"Bearer {let_in(onboard).secret}")]
        gateway = start_gateway()
        asked = message(name, text("hello", 65)[:1], id="7")
        with grpc.insecure_channel(gateway.url) as channel:
            answer = infer_stub(channel)(asked, metadata=metadata)
            (told,) = stream_stub(channel)(iter([asked]), metadata=metadata)
    assert told.error_message == ""
    for each in (answer, told.infer_response):
        found = {
            tensor.name: content
            for tensor, content in zip(each.outputs, each.raw_output_contents, strict=True)
        }
        assert set(found) == {"text_output", "output_log_probs", "context_logits"}
        assert found["output_log_probs"] == LOG_PROBS
    assert [(each.status, each.tokens_out) for each in gateway.settles()] == [("ok", 65)] * 2


@pytest.mark.parametrize("count", [64, 65])
def test_only_what_measures_an_answer_is_bounded(count):
    made = CLASSES["ModelInferResponse"]()
    made.outputs.add(name="output_log_probs", datatype="FP32", shape=[count])
    made.outputs.add(name="num_output_tokens", datatype="INT32", shape=[1])
    made.raw_output_contents.extend([bytes(4 * count), struct.pack("<i", 9)])
    assert text_tensors.event(made) == {"num_output_tokens": 9}
    made.outputs[1].shape[:] = [count]
    made.raw_output_contents[1] = bytes(4 * count)
    if count <= text_tensors.ELEMENTS_MAX:
        assert len(text_tensors.event(made)["num_output_tokens"]) == count
    else:
        with pytest.raises(CallerError, match="more than 64 elements"):
            text_tensors.event(made)
