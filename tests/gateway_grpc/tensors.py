"""Requests of the sample models, as tritonclient makes them and as plain messages."""

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.grpc import service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService"
FINAL = "triton_final_response"
ENABLE_FINAL = "triton_enable_empty_final_response"


def floats(*values: float) -> list[triton_grpc.InferInput]:
    """The input of `identity`."""
    made = triton_grpc.InferInput("INPUT0", [len(values)], "FP32")
    made.set_data_from_numpy(np.array(values, np.float32))
    return [made]


def text(prompt: str, tokens: int, *, stream: bool = True) -> list[triton_grpc.InferInput]:
    """The inputs of `tiny-lm`."""
    values = {
        "text_input": np.array([prompt.encode()], object),
        "stream": np.array([stream]),
        "sampling_parameters": np.array([b'{"max_tokens":%d,"ignore_eos":true}' % tokens], object),
    }
    made = []
    for name, value in values.items():
        tensor = triton_grpc.InferInput(name, [1], "BOOL" if name == "stream" else "BYTES")
        tensor.set_data_from_numpy(value)
        made.append(tensor)
    return made


def message(
    model: str, inputs: list[triton_grpc.InferInput], **fields: object
) -> pb.ModelInferRequest:
    """The same as a message."""
    made = pb.ModelInferRequest(model_name=model, **fields)
    for tensor in inputs:
        made.inputs.append(tensor._get_tensor())
        made.raw_input_contents.append(tensor._get_content())
    return made


def infer_stub(channel):
    return channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def stream_stub(channel):
    return channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
