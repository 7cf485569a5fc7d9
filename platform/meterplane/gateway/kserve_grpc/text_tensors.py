"""Tensors of a text engine as a body of the generate protocol, and back. Pure.

One set of rules for both protocols: a message's inputs become the JSON document that HTTP would
carry, `surfaces.kserve_generate` bounds and rewrites it, and what it changed becomes tensors again.
"""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from meterplane.gateway.kserve_grpc.messages import Message
from meterplane.gateway.surface import Offer
from meterplane.gateway.surfaces.kserve_generate import COUNTS, GenerateWork
from meterplane.kernel.errors import CallerError

ELEMENTS_MAX = 64  # of one tensor; stop words are the longest there are
TEXT = "text_output"
# What an engine's answer is measured by, whichever engine it is.
MEASURED = frozenset({TEXT, *COUNTS, "sequence_index", "finish_reason"})
_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_DATATYPES: dict[type, str] = {str: "BYTES", bool: "BOOL", int: "INT32"}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def document(message: Message) -> dict[str, msgspec.Raw]:
    """The inputs as JSON values; one element is a scalar. Raises `CallerError` 400."""
    found: dict[str, msgspec.Raw] = {}
    for tensor, elements in _elements(message.inputs, message.raw_input_contents):
        if tensor.name in found:
            raise CallerError("invalid_value", f"the input {tensor.name[:80]!r} comes twice")
        try:
            found[tensor.name] = msgspec.Raw(msgspec.json.encode(_scalar(elements)))
        except UnicodeEncodeError:
            raise _unreadable(tensor) from None
    return found


def event(response: Message) -> dict[str, Any]:
    """The outputs that measure an answer, as the generate protocol's event has them.

    Raises `CallerError` for one that cannot be read. The others are the caller's to read: log
    probabilities or logits have as many elements as they like, of types we need not know.
    """
    tensors = _elements(response.outputs, response.raw_output_contents, MEASURED)
    return {tensor.name: _scalar(elements) for tensor, elements in tensors}


def write(message: Message, work: GenerateWork, offer: Offer) -> list[str]:
    """Bring the inputs in line with what the engine must be told; the outputs to be hidden."""
    wanted = _fields.decode(work.upstream_body(offer))
    for name, raw in wanted.items():
        if bytes(raw) != bytes(work.document.get(name, b"")):
            _put(message, name, msgspec.json.decode(raw))
    for tensor in [each for each in message.inputs if each.name not in wanted]:
        raise CallerError("unknown_parameter", f"the input {tensor.name[:80]!r} is not allowed")
    asked = {output.name for output in message.outputs}
    if not asked:
        return [count for count in COUNTS if count not in work.asks_counts]
    missing = [name for name in (TEXT, *COUNTS) if name not in asked]
    for name in missing:
        message.outputs.add(name=name)
    return missing


def hide(response: Message, names: Sequence[str]) -> None:
    """Take outputs out of a response."""
    for index in range(len(response.outputs) - 1, -1, -1):
        if response.outputs[index].name in names:
            del response.outputs[index]
            if index < len(response.raw_output_contents):
                del response.raw_output_contents[index]


def _scalar(elements: list[Any]) -> Any:
    return elements[0] if len(elements) == 1 else elements


def _put(message: Message, name: str, value: Any) -> None:
    """Set an input of one element, in the form that the caller chose for the others."""
    # One element, and as many dimensions as this engine's texts have.
    places = {tensor.name: index for index, tensor in enumerate(message.inputs)}
    like = message.inputs[places["text_input"]]
    datatype = _DATATYPES[type(value)]
    index = places.get(name, len(message.inputs))
    if name not in places:
        message.inputs.add(name=name, datatype=datatype, shape=like.shape)
    tensor = message.inputs[index]
    if value.__class__ is int and tensor.datatype in _FORMATS:
        datatype = tensor.datatype
    tensor.datatype = datatype
    tensor.shape[:] = like.shape
    content = value.encode() if isinstance(value, str) else value
    if not message.raw_input_contents:
        tensor.ClearField("contents")
        getattr(tensor.contents, _CONTENTS[datatype]).append(content)
        return
    raw = (
        struct.pack("<I", len(content)) + content
        if isinstance(content, bytes)
        else struct.pack(f"<{_FORMATS[datatype]}", content)
    )
    if index < len(message.raw_input_contents):
        message.raw_input_contents[index] = raw
    else:
        message.raw_input_contents.append(raw)


def _elements(
    tensors: Sequence[Message],
    raw_contents: Sequence[bytes],
    names: frozenset[str] | None = None,
) -> list[tuple[Message, list[Any]]]:
    """Tensors and their elements: those of these names, or all."""
    if raw_contents and len(raw_contents) != len(tensors):
        raise CallerError("invalid_value", "raw contents must be as many as the tensors are")
    found = []
    for index, tensor in enumerate(tensors):
        if names is not None and tensor.name not in names:
            continue
        if raw_contents:
            elements = _of_raw(tensor, raw_contents[index])
        else:
            elements = list(getattr(tensor.contents, _CONTENTS.get(tensor.datatype, ""), []))
        if len(elements) > ELEMENTS_MAX:
            raise CallerError(
                "invalid_value",
                f"the tensor {tensor.name[:80]!r} has more than {ELEMENTS_MAX} elements",
            )
        found.append((tensor, [_text(tensor, element) for element in elements]))
    return found


def _of_raw(tensor: Message, raw: bytes) -> list[Any]:
    if tensor.datatype == "BYTES":
        return _strings(tensor, raw)
    form = _FORMATS.get(tensor.datatype)
    if form is None or len(raw) % struct.calcsize(form):
        raise _unreadable(tensor)
    if len(raw) > ELEMENTS_MAX * struct.calcsize(form):
        return [0] * (ELEMENTS_MAX + 1)  # refused by its length: not worth reading
    return [element for (element,) in struct.iter_unpack(f"<{form}", raw)]


def _strings(tensor: Message, raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= ELEMENTS_MAX:
        if at + 4 > len(raw):
            raise _unreadable(tensor)
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise _unreadable(tensor)
        found.append(raw[at - length : at])
    return found


def _text(tensor: Message, element: Any) -> Any:
    if not isinstance(element, bytes):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise _unreadable(tensor) from None


def _unreadable(tensor: Message) -> CallerError:
    return CallerError(
        "invalid_value",
        f"the tensor {tensor.name[:80]!r} is not {tensor.datatype[:16]} as it says it is",
    )
