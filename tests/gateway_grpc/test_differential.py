"""The same requests to Triton directly and through the gateway: the same codes, words and bytes.

Half are valid, half broken in one or two of the ways a caller could break them. The seed is in the
test's name and in what a failure prints.
"""

import random

import grpc
import pytest
from google.protobuf import text_format
from tritonclient.grpc import service_pb2 as pb

from tests.gateway_grpc.tensors import infer_stub, stream_stub

pytestmark = pytest.mark.django_db(transaction=True)

SEED = 20_260_701
REQUESTS = 200
# What the gateway refuses itself, before any server is asked, in words of its own.
OURS = ("does not exist or this key may not use it", "is not a number", "dimension that cannot be",
        "send 1 to", "is not allowed")  # fmt: skip


def valid(chance: random.Random) -> pb.ModelInferRequest:
    count = chance.choice([0, 1, 2, 7, 300])
    made = pb.ModelInferRequest(
        model_name="identity",
        model_version=chance.choice(["", "", "1"]),
        id=chance.choice(["", "7", "ünïcode", "x" * 300]),
    )
    tensor = made.inputs.add(name="INPUT0", datatype="FP32", shape=[count])
    if chance.random() < 0.3:
        tensor.contents.fp32_contents.extend(chance.random() for _ in range(count))
    else:
        made.raw_input_contents.append(chance.randbytes(4 * count))
    if chance.random() < 0.5:
        made.outputs.add(name="OUTPUT0")
    if count and chance.random() < 0.15:
        made.outputs or made.outputs.add(name="OUTPUT0")
        made.outputs[0].parameters["classification"].int64_param = chance.randint(1, 3)
    return made


def _drop_contents(made, chance):
    made.ClearField("raw_input_contents")
    made.inputs[0].ClearField("contents")


def _both_kinds(made, chance):
    made.inputs[0].contents.fp32_contents.append(1)
    made.raw_input_contents or made.raw_input_contents.append(b"1234")


def _other_contents(made, chance):
    _drop_contents(made, chance)
    made.inputs[0].contents.int_contents.append(1)


def _class_text(made, chance):
    made.outputs or made.outputs.add(name="OUTPUT0")
    made.outputs[0].parameters["classification"].string_param = "two"


FAULTS = [
    lambda m, c: setattr(m, "model_version", c.choice(["2", "9", "999999999"])),
    lambda m, c: setattr(m, "model_version", c.choice(["x", "-1"])),
    lambda m, c: setattr(m, "model_name", c.choice(["", "nope", "identity ", "../identity"])),
    lambda m, c: setattr(m.inputs[0], "name", c.choice(["", "INPUT1", "input0"])),
    lambda m, c: setattr(m.inputs[0], "datatype", c.choice(["", "FP64", "INT32", "BYTES", "x"])),
    lambda m, c: m.inputs[0].shape.append(c.choice([1, 2])),
    lambda m, c: m.inputs[0].ClearField("shape"),
    lambda m, c: m.inputs[0].shape.__setitem__(0, c.choice([5, 1_000_000, 2**31 - 1])),
    lambda m, c: m.inputs[0].shape.__setitem__(0, c.choice([-1, -5])),
    lambda m, c: m.raw_input_contents.append(b"1234"),
    lambda m, c: m.inputs.append(m.inputs[0]),
    lambda m, c: m.inputs.add(name="INPUT1", datatype="FP32", shape=[1]),
    lambda m, c: (m.ClearField("inputs"), m.ClearField("raw_input_contents")),
    lambda m, c: m.outputs.add(name=c.choice(["", "OUTPUT1", "INPUT0"])),
    lambda m, c: (m.outputs.add(name="OUTPUT0"), m.outputs.add(name="OUTPUT0")),
    _drop_contents,
    _both_kinds,
    _other_contents,
    _class_text,
]  # fmt: skip


def requests() -> list[pb.ModelInferRequest]:
    chance = random.Random(SEED)
    found = []
    for number in range(REQUESTS):
        made = valid(chance)
        if number % 2:
            # Each fault comes for itself first, then pairs of them.
            alone = number // 2 < len(FAULTS)
            faults = [FAULTS[number // 2]] if alone else chance.sample(FAULTS, 2)
            for fault in faults:
                try:
                    fault(made, chance)
                except IndexError:
                    continue  # the fault before it left nothing to break
        found.append(made)
    return found


def unary(channel, asked, metadata=()):
    try:
        return "OK", infer_stub(channel)(asked, metadata=metadata).SerializeToString()
    except grpc.RpcError as failure:
        return failure.code().name, failure.details()


def streamed(channel, asked, metadata=()):
    answers = list(stream_stub(channel)(iter([asked]), metadata=metadata))
    if answers and answers[0].error_message:
        return "error", answers[0].error_message, answers[0].infer_response.id
    return "OK", [each.SerializeToString() for each in answers], ""


def ours(details: object) -> bool:
    return isinstance(details, str) and any(words in details for words in OURS)


@pytest.mark.parametrize("call", [unary, streamed])
def test_a_request_is_answered_as_triton_would(call, channel, gateway, triton, acme):
    metadata = [("authorization", f"Bearer {acme.secret}")]
    different, same, refused = [], 0, 0
    with grpc.insecure_channel(triton.grpc_url) as direct:
        for number, asked in enumerate(requests()):
            theirs, found = call(direct, asked), call(channel, asked, metadata)
            refused += ours(found[1])
            if found == theirs or (ours(found[1]) and found[0] == theirs[0]):
                same += 1
            else:
                request = text_format.MessageToString(asked, as_one_line=True)[:300]
                different.append(f"{number}: {request}\n  {theirs}\n  {found}")
    assert not different, f"seed {SEED}\n" + "\n".join(different)
    assert same == REQUESTS
    assert refused < REQUESTS / 3
    oks = sum(settle.status == "ok" for settle in gateway.settles())
    assert oks >= REQUESTS / 2
    assert gateway.at_rest()


def decoupled(number: int) -> pb.ModelInferRequest:
    """A request of the text model; every third is broken where only the model can tell."""
    chance = random.Random(SEED + number)
    sampling = b'{"max_tokens":%d,"seed":%d}' % (chance.randint(1, 12), number)
    if number % 3 == 2:
        sampling = chance.choice([b"{bad", b'{"max_tokens":-1}', b'{"seed":"x"}', b"[]"])
    values = {"text_input": b"hello %d" % number, "sampling_parameters": sampling}
    made = pb.ModelInferRequest(model_name="tiny-lm", id=str(number))
    for name, value in values.items():
        made.inputs.add(name=name, datatype="BYTES", shape=[1])
        made.raw_input_contents.append(len(value).to_bytes(4, "little") + value)
    made.inputs.add(name="stream", datatype="BOOL", shape=[1])
    made.raw_input_contents.append(chance.choice([b"\0", b"\1"]))
    if chance.random() < 0.3:
        made.outputs.add(name="text_output")
    if chance.random() < 0.5:
        made.parameters["triton_enable_empty_final_response"].bool_param = True
    return made


def test_a_decoupled_model_answers_as_triton_would(channel, gateway, triton, acme):
    metadata = [("authorization", f"Bearer {acme.secret}")]
    with grpc.insecure_channel(triton.grpc_url) as direct:
        for number in range(45):
            asked = decoupled(number)
            theirs = list(stream_stub(direct)(iter([asked])))
            asked.model_name = "raw-lm"
            found = list(stream_stub(channel)(iter([asked]), metadata=metadata))
            for each in found:
                if each.infer_response.model_name:
                    each.infer_response.model_name = "tiny-lm"
            assert found == theirs, f"seed {SEED}, request {number}"
    assert len(gateway.settles()) == 45
    assert sum(settle.status == "ok" for settle in gateway.settles()) == 30
