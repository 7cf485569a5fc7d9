"""`POST /v2/models/{m}/infer`: KServe v2 with Triton's binary tensor extension.

Only the JSON part is read, for the allow-list and for metering; tensors travel as bytes, unread.
Anything that could reach beyond the request (shared memory, unregistered parameters) is refused.
A JSON part of no bytes is Triton's raw binary request: the body is the model's one input, its shape
the model's own, and it counts as one row.

The JSON part that is forwarded is written anew from what was read. Two parsers differ on a name
that comes twice (ours keeps the last, Triton's the first), so an original that was found harmless
here could still map another process's memory there.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from meterplane.contracts.usage import Surface
from meterplane.gateway.surface import Bounds, Offer
from meterplane.gateway.surfaces import kserve_models
from meterplane.kernel.errors import CallerError

TENSORS_MAX = 64
REQUEST_PARAMETERS = frozenset({"binary_data_output"})
INPUT_PARAMETERS = frozenset({"binary_data_size"})
OUTPUT_PARAMETERS = frozenset({"binary_data", "classification"})
HEADER_LENGTH = b"inference-header-content-length"

Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Parameters = dict[str, bool | int | float | str]


class InputTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` stays the bytes it came as."""

    name: str
    shape: list[Dimension]
    datatype: str
    parameters: Parameters | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class OutputTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: Parameters | msgspec.UnsetType = msgspec.UNSET


class InferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: list[InputTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters | msgspec.UnsetType = msgspec.UNSET
    outputs: list[OutputTensor] | msgspec.UnsetType = msgspec.UNSET


class InferWork:
    """What goes to Triton: a body, and how much of it is JSON (None: all of it)."""

    __slots__ = ("body", "bytes_in", "json_bytes", "model", "request", "rows", "tensor_bytes_in",
                 "tensors", "version")  # fmt: skip
    surface: Surface = "kserve.infer"
    stream = False
    metadata = None

    def __init__(
        self, model: str, version: str, request: InferRequest, sent: bytes, tensors: bytes | None
    ) -> None:
        self.model = model
        self.version = version
        self.request = request
        self.bytes_in = len(sent)
        self.tensor_bytes_in = len(tensors or b"")
        self.tensors = tensors
        shape = request.inputs[0].shape if request.inputs else []
        self.rows = shape[0] if shape else 1
        self.body, self.json_bytes = self._written(request)

    def _written(self, request: InferRequest) -> tuple[bytes, int | None]:
        if not request.inputs:
            return self.tensors or b"", 0
        written = _encoder.encode(request)
        if self.tensors is None:
            return written, None
        return written + self.tensors, len(written)

    def bounds(self, offer: Offer) -> Bounds:
        """Rows; and only tensors that the model is known to have, where the catalog says them.

        Of the request's own parameters, those that the catalog lists for the model are forwarded.
        """
        serving = offer.serving
        kserve_models.check_version(serving, self.version, self.model)
        allow(self.request.parameters, REQUEST_PARAMETERS.union(serving.parameters), "request")
        check_named("input", (tensor.name for tensor in self.request.inputs), serving.inputs)
        check_named("output", (each.name for each in self.request.outputs or ()), serving.outputs)
        if serving.outputs and not self.request.inputs:
            raise CallerError(
                "invalid_value", "a raw binary request cannot be sent to this model; send JSON"
            )
        return Bounds(0, 0, self.rows)

    def upstream(
        self, offer: Offer, scheduling: dict[str, int] | None = None
    ) -> tuple[bytes, int | None]:
        """What goes to the model: a body, and how much of it is JSON (None: all of it).

        A server gives every output to a request that names none: of a model whose catalog lists
        outputs, those are then asked for by name. A raw binary request has no place for
        `scheduling`, the parameters that are ours.
        """
        request = self.request
        if offer.serving.outputs and not request.outputs:
            named = [OutputTensor(name) for name in offer.serving.outputs]
            request = msgspec.structs.replace(request, outputs=named)
        if scheduling and request.inputs:
            parameters = (request.parameters or {}) | scheduling
            request = msgspec.structs.replace(request, parameters=parameters)
        if request is self.request:
            return self.body, self.json_bytes
        return self._written(request)


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()
_RAW = InferRequest([])


def path(upstream: str, version: str) -> str:
    """Where a model's tensors go on Triton. The names are the catalog's or checked by routes."""
    model = f"/v2/models/{upstream}"
    return f"{model}/versions/{version}/infer" if version else f"{model}/infer"


def parse(model: str, version: str, body: bytes, header_length: bytes | None) -> InferWork:
    """The work in a body whose JSON part is `header_length` bytes (all of it when None).

    Raises `CallerError` 400 naming what is not allowed or not readable.
    """
    length = _prefix_length(body, header_length)
    if header_length is not None and length == 0:
        return InferWork(model, version, _RAW, body, body)
    try:
        written = memoryview(body)[:length]
        str(written, "utf-8")  # tensors are forwarded as they came: the decoder does not look
        request = _decoder.decode(written)
    except msgspec.ValidationError as problem:
        raise CallerError("invalid_value", f"the request JSON: {problem}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise CallerError("invalid_json", f"failed to parse the request JSON: {problem}") from None
    _check(request)
    check_shapes(((tensor.name, tensor.shape) for tensor in request.inputs), len(body))
    return InferWork(
        model, version, request, body, None if header_length is None else body[length:]
    )


def check_named(kind: str, names: Iterable[str], allowed: list[str]) -> None:
    """Only tensors the catalog lists, where it lists them. Raises `CallerError` 400."""
    for name in names:
        if allowed and name not in allowed:
            raise CallerError(
                "unknown_tensor",
                f"this model has no {kind} {name[:80]!r}; it has {', '.join(allowed)}",
            )


def _prefix_length(body: bytes, header_length: bytes | None) -> int:
    if header_length is None:
        return len(body)
    if not header_length.isdigit() or len(header_length) > 12:
        raise CallerError("invalid_header", "Inference-Header-Content-Length is not a number")
    length = int(header_length)
    if length > len(body):
        raise CallerError(
            "invalid_header",
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes",
        )
    return length


def _check(request: InferRequest) -> None:
    outputs = request.outputs or []
    if not 0 < len(request.inputs) <= TENSORS_MAX or len(outputs) > TENSORS_MAX:
        raise CallerError("invalid_value", f"send 1 to {TENSORS_MAX} inputs and outputs")
    for tensor in request.inputs:
        allow(tensor.parameters, INPUT_PARAMETERS, f"input {tensor.name[:80]!r}")
    for output in outputs:
        allow(output.parameters, OUTPUT_PARAMETERS, f"output {output.name[:80]!r}")


def check_shapes(inputs: Iterable[tuple[str, Sequence[int]]], bytes_in: int) -> None:
    """Refuse shapes that claim more than was sent. Raises `CallerError` 400.

    A server makes room for what JSON's shapes claim before it looks at the data: a hundred bytes
    that claimed 2^33 numbers took one down, with every tenant on it. No element is less than a
    byte. Over gRPC it compares first.
    """
    left = bytes_in
    for name, shape in inputs:
        elements = 0 if 0 in shape else 1
        for dimension in shape:
            elements *= dimension
            if elements > left:  # at once: a product of a million dimensions is work, too
                raise CallerError(
                    "invalid_value",
                    f"the shape of input {name[:80]!r} claims more elements than were sent",
                )
        left -= elements


def allow(
    parameters: Iterable[str] | msgspec.UnsetType, allowed: frozenset[str], where: str
) -> None:
    """Refuse a parameter that is not listed. Raises `CallerError` 400 naming it."""
    for name in parameters or ():
        if name not in allowed:
            raise CallerError(
                "unknown_parameter", f"the parameter {name[:80]!r} of the {where} is not allowed"
            )
