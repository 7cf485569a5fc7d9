"""What of an infer request is read, refused and forwarded, byte for byte. No I/O."""

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.gateway import kserve
from meterplane.kernel.errors import CallerError

INPUT = {"name": "A", "shape": [2, 3], "datatype": "FP32", "data": [1]}
MODEL = ModelPolicy(
    name="m",
    upstream="m",
    adapter="tensor",
    prices=UnitPrices(input_token_pico=0, output_token_pico=0, request_pico=1000),
    context_tokens_max=0,
    output_tokens_max=0,
    output_tokens_default=0,
)


def parse(body, length=None):
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return kserve.parse("m", "", encoded, length)


def refusal(body, length=None):
    with pytest.raises(CallerError) as refused:
        parse(body, length)
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [INPUT] * 65},
        {"inputs": [INPUT], "outputs": [{"name": "B"}] * 65},
        {"inputs": [INPUT | {"shape": [-1]}]},
        {"inputs": [INPUT | {"shape": [2**31]}]},
        {"inputs": [INPUT | {"shape": [1.5]}]},
        {"inputs": [{"name": "A", "shape": [1]}]},
        {"inputs": INPUT},
        {"inputs": [INPUT], "id": 7},
        {"inputs": [INPUT], "parameters": {"binary_data_output": {"nested": 1}}},
    ],
)
def test_what_is_not_an_infer_request_is_refused(body):
    assert refusal(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"inputs": [INPUT], "surprise": 1}, "surprise"),
        ({"inputs": [INPUT | {"surprise": 1}]}, "surprise"),
        ({"inputs": [INPUT], "outputs": [{"name": "B", "surprise": 1}]}, "surprise"),
        ({"inputs": [INPUT], "parameters": {"sequence_id": 1}}, "sequence_id"),
        ({"inputs": [INPUT], "parameters": {"priority": 1}}, "priority"),
        ({"inputs": [INPUT], "parameters": {"timeout": 1}}, "timeout"),
        ({"inputs": [INPUT], "parameters": {"headers": "x"}}, "headers"),
        ({"inputs": [INPUT | {"parameters": {"shared_memory_region": "r"}}]}, "shared_memory"),
        ({"inputs": [INPUT | {"parameters": {"binary_data": True}}]}, "binary_data"),
        (
            {
                "inputs": [INPUT],
                "outputs": [{"name": "B", "parameters": {"shared_memory_offset": 1}}],
            },
            "shared_memory_offset",
        ),
        (
            b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","parameters":'
            b'{"\\u0073hared_memory_region":"r"}}]}',
            "shared_memory_region",
        ),
    ],
)
def test_what_could_reach_beyond_the_request_is_refused_by_name(body, named):
    assert named in refusal(body)


def test_a_name_that_comes_twice_is_forwarded_once_as_it_was_checked():
    work = parse(
        b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32",'
        b'"parameters":{"shared_memory_region":"r"},"parameters":{},"data":[1]}],'
        b'"parameters":{"headers":"x"},"parameters":{}}'
    )
    assert work.body.body == (
        b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","parameters":{},"data":[1]}],'
        b'"parameters":{}}'
    )


def test_tensor_data_is_not_re_encoded():
    data = b"[[1.50000000000000000000000001, 1e-400,\n 0.1],[ 1,2,3 ]]"
    body = b'{"inputs":[{"name":"A","shape":[2,3],"datatype":"FP64","data":' + data + b"}]}"
    work = parse(body)
    assert work.body == kserve.Infer(body, None)
    assert work.bounds(MODEL).rows == 2


def test_binary_tensors_follow_the_new_head_untouched():
    head = msgspec.json.encode(
        {
            "id": "7",
            "inputs": [INPUT | {"parameters": {"binary_data_size": 4}}],
            "outputs": [{"name": "B", "parameters": {"binary_data": True, "classification": 2}}],
            "parameters": {"binary_data_output": True},
        }
    )
    tensors = b"\x00{]\xff"
    sent = parse(b" " + head + tensors, str(len(head) + 1).encode()).body
    assert sent.body[sent.json_bytes :] == tensors
    assert msgspec.json.decode(sent.body[: sent.json_bytes]) == msgspec.json.decode(head)


@pytest.mark.parametrize("length", [b"x", b"-1", b"+3", b"0", b"3.0", b"999999", b"9" * 40, b""])
def test_a_head_length_that_cannot_be_is_refused(length):
    assert "Inference-Header-Content-Length" in refusal({"inputs": [INPUT]}, length)


def test_a_tensor_without_dimensions_is_one_row():
    assert parse({"inputs": [INPUT | {"shape": []}]}).bounds(MODEL).rows == 1


def test_deep_nesting_is_refused_before_triton_has_to_recurse():
    deep = b"[" * 100_000 + b"]" * 100_000
    assert refusal(b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","data":' + deep + b"}]}")
