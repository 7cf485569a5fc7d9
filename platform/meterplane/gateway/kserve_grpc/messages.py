"""The messages of `inference.GRPCInferenceService` that we speak, with the protocol's numbers.

Only what is listed here is read, and `read` drops what is not: a field we do not know cannot reach
a server through us. Built at start in a pool of our own, so that a process which also holds
`tritonclient` has no two definitions of one name. A test compares every number with theirs.

Source: the Open Inference Protocol's `open_inference_grpc.proto` and Triton's
`grpc_service.proto`, which adds the stream.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from meterplane.kernel.errors import CallerError

# A message of the classes below. They are made at run time, so there is no type to name.
Message = Any

_PACKAGE = "inference"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

# One line a message: `type name number`; `[]` is repeated, `{}` a map from string.
_MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1, string version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, string[] extensions 3",
    "ModelMetadataRequest": "string name 1, string version 2",
    "TensorMetadata": "string name 1, string datatype 2, int64[] shape 3",
    "ModelMetadataResponse": (
        "string name 1, string[] versions 2, string platform 3, "
        "TensorMetadata[] inputs 4, TensorMetadata[] outputs 5"
    ),
    "InferParameter": (
        "bool bool_param 1, int64 int64_param 2, string string_param 3, double double_param 4, "
        "uint64 uint64_param 5"
    ),
    "InferTensorContents": (
        "bool[] bool_contents 1, int32[] int_contents 2, int64[] int64_contents 3, "
        "uint32[] uint_contents 4, uint64[] uint64_contents 5, float[] fp32_contents 6, "
        "double[] fp64_contents 7, bytes[] bytes_contents 8"
    ),
    "InferInputTensor": (
        "string name 1, string datatype 2, int64[] shape 3, InferParameter{} parameters 4, "
        "InferTensorContents contents 5"
    ),
    "InferRequestedOutputTensor": "string name 1, InferParameter{} parameters 2",
    "ModelInferRequest": (
        "string model_name 1, string model_version 2, string id 3, InferParameter{} parameters 4, "
        "InferInputTensor[] inputs 5, InferRequestedOutputTensor[] outputs 6, "
        "bytes[] raw_input_contents 7"
    ),
    "InferOutputTensor": (
        "string name 1, string datatype 2, int64[] shape 3, InferParameter{} parameters 4, "
        "InferTensorContents contents 5"
    ),
    "ModelInferResponse": (
        "string model_name 1, string model_version 2, string id 3, InferParameter{} parameters 4, "
        "InferOutputTensor[] outputs 5, bytes[] raw_output_contents 6"
    ),
    "ModelStreamInferResponse": "string error_message 1, ModelInferResponse infer_response 2",
}
_ONE_OF = {"InferParameter": "parameter_choice"}


def _describe(name: str, fields: str) -> descriptor_pb2.DescriptorProto:
    described = descriptor_pb2.DescriptorProto(name=name)
    if name in _ONE_OF:
        described.oneof_decl.add(name=_ONE_OF[name])
    for line in filter(None, fields.split(", ")):
        kind, field_name, number = line.split()
        field = described.field.add(name=field_name, number=int(number))
        field.label = _Field.LABEL_REPEATED if kind[-1] in "]}" else _Field.LABEL_OPTIONAL
        if kind.endswith("{}"):
            entry = _map_entry(field_name, kind[:-2])
            described.nested_type.append(entry)
            _set_type(field, f"{name}.{entry.name}")
        else:
            _set_type(field, kind.removesuffix("[]"))
        if name in _ONE_OF:
            field.oneof_index = 0
    return described


def _map_entry(field_name: str, value: str) -> descriptor_pb2.DescriptorProto:
    entry = descriptor_pb2.DescriptorProto(name=f"{field_name.title()}Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", "string"), ("value", value)), start=1):
        field = entry.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
        _set_type(field, kind)
    return entry


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="meterplane/inference.proto", package=_PACKAGE, syntax="proto3"
    )
    file.message_type.extend(_describe(name, fields) for name, fields in _MESSAGES.items())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


CLASSES = _build()
ModelInferRequest = CLASSES["ModelInferRequest"]
ModelInferResponse = CLASSES["ModelInferResponse"]
ModelStreamInferResponse = CLASSES["ModelStreamInferResponse"]
ModelMetadataRequest = CLASSES["ModelMetadataRequest"]
ModelMetadataResponse = CLASSES["ModelMetadataResponse"]
ModelReadyRequest = CLASSES["ModelReadyRequest"]
ModelReadyResponse = CLASSES["ModelReadyResponse"]
ServerLiveResponse = CLASSES["ServerLiveResponse"]
ServerMetadataResponse = CLASSES["ServerMetadataResponse"]
ServerReadyRequest = CLASSES["ServerReadyRequest"]
ServerReadyResponse = CLASSES["ServerReadyResponse"]


def read(kind: Any, content: bytes) -> Message:
    """A caller's message, with nothing in it that is not listed here. Raises `CallerError` 400."""
    try:
        message = kind.FromString(content)
    except DecodeError:
        raise CallerError(
            "invalid_message", f"the message is not a {_PACKAGE}.{kind.DESCRIPTOR.name}"
        ) from None
    message.DiscardUnknownFields()
    return message
