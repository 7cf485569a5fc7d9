"""`POST /v2/models/{m}/infer`: KServe v2 with Triton's binary tensor extension.

Only the JSON prefix is read, for the allow-list and for metering; tensors travel as bytes, unread.
Anything that could reach beyond the request (shared memory, unregistered parameters) is refused.
"""

import zlib
from typing import Any

import msgspec

from meterplane.gateway.surface import Bounds, Work
from meterplane.kernel.errors import CallerError
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX

ADAPTERS = frozenset({"tensor"})
TENSORS_MAX = 64
REQUEST_PARAMETERS = frozenset({"binary_data_output"})
INPUT_PARAMETERS = frozenset({"binary_data_size"})
OUTPUT_PARAMETERS = frozenset({"binary_data", "classification"})
REQUEST_FIELDS = frozenset({"id", "parameters", "inputs", "outputs"})
HEADER_LENGTH = b"inference-header-content-length"


class Tensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int] = []
    datatype: str = ""
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw(b"null")


class InferRequest(msgspec.Struct, frozen=True):
    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Tensor] = []


_decoder = msgspec.json.Decoder(InferRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse(model: str, version: str, body: bytes, header_length: bytes | None) -> Work:
    """The work in a body whose JSON part is `header_length` bytes (all of it when None).

    Raises `CallerError` 400 naming what is not allowed or not readable.
    """
    prefix = body[: _prefix_length(body, header_length)]
    try:
        unknown = _fields.decode(prefix).keys() - REQUEST_FIELDS
        request = _decoder.decode(prefix)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise CallerError("invalid_json", f"failed to parse the request JSON: {problem}") from None
    if unknown:
        raise CallerError("unknown_parameter", f"unexpected field {min(unknown)[:80]!r}")
    _check(request)
    rows = request.inputs[0].shape[0] if request.inputs[0].shape else 1
    return Work(
        surface="kserve.infer",
        model=model,
        adapters=ADAPTERS,
        stream=False,
        bytes_in=len(body),
        bounds=lambda _: Bounds(0, 0, max(0, rows)),
        body=body,
        version=version,
    )


def _prefix_length(body: bytes, header_length: bytes | None) -> int:
    if header_length is None:
        return len(body)
    if not header_length.isdigit() or len(header_length) > 12:
        raise CallerError("invalid_header", "Inference-Header-Content-Length is not a number")
    length = int(header_length)
    if not 0 < length <= len(body):
        raise CallerError(
            "invalid_header",
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes",
        )
    return length


def _check(request: InferRequest) -> None:
    if (
        not request.inputs
        or len(request.inputs) > TENSORS_MAX
        or len(request.outputs) > TENSORS_MAX
    ):
        raise CallerError("invalid_value", f"send 1 to {TENSORS_MAX} inputs and outputs")
    _allow(request.parameters, REQUEST_PARAMETERS, "request")
    for tensor in request.inputs:
        _allow(tensor.parameters, INPUT_PARAMETERS, f"input {tensor.name[:80]!r}")
    for tensor in request.outputs:
        _allow(tensor.parameters, OUTPUT_PARAMETERS, f"output {tensor.name[:80]!r}")


def _allow(parameters: dict[str, Any], allowed: frozenset[str], where: str) -> None:
    for name in parameters:
        if name not in allowed:
            raise CallerError(
                "unknown_parameter", f"the parameter {name[:80]!r} of the {where} is not allowed"
            )


def decompress(body: bytes, encoding: bytes) -> bytes:
    """A gzip or deflate body, bounded like a plain one. Raises `CallerError` 400, 413, 415."""
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise CallerError(
            "unsupported_encoding", "Content-Encoding may be gzip, deflate or none", status=415
        )
    inflater = zlib.decompressobj(wbits=47)  # zlib and gzip headers, recognised by themselves
    try:
        plain = inflater.decompress(body, REQUEST_BODY_BYTES_MAX + 1)
    except zlib.error as problem:
        raise CallerError("invalid_body", f"the body cannot be decompressed: {problem}") from None
    if len(plain) > REQUEST_BODY_BYTES_MAX:
        raise body_too_large()
    if not inflater.eof:
        raise CallerError("invalid_body", "the compressed body ends early")
    return plain


def body_too_large() -> CallerError:
    megabytes = REQUEST_BODY_BYTES_MAX // (1024 * 1024)
    return CallerError(
        "body_too_large", f"The body is larger than {megabytes} MB; split it.", status=413
    )
