"""`ModelInferRequest`: read, checked against what HTTP's infer allows, and written for a server.

Guarantees: what is forwarded is what was read here; parameters that could reach beyond the request
(shared memory, sequences, priorities) are refused by the rules of `surfaces.kserve_infer`. For a
text engine the tensors are also read as a body of the generate protocol, and bounded as one.
"""

from typing import Literal

from meterplane.contracts.usage import Surface
from meterplane.gateway.kserve_grpc import text_tensors
from meterplane.gateway.kserve_grpc.messages import Message, ModelInferRequest, read
from meterplane.gateway.run import Run
from meterplane.gateway.surface import Bounds, Offer
from meterplane.gateway.surfaces import kserve_infer, kserve_models
from meterplane.gateway.surfaces.generate_keys import KEYS
from meterplane.gateway.surfaces.kserve_generate import GenerateWork
from meterplane.gateway.triton_priority import scheduling_of
from meterplane.kernel.errors import CallerError, WorldError

ENABLE_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
REQUEST_PARAMETERS = frozenset({ENABLE_FINAL})
INPUT_PARAMETERS: frozenset[str] = frozenset()
OUTPUT_PARAMETERS = frozenset({"classification"})
VERSION_DIGITS_MAX = 9
DIMENSION_MAX = 2**31 - 1

InferSurface = Literal["grpc.infer", "grpc.stream_infer"]


class InferWork:
    """One request message. `asks_final`: the caller wants the mark of a request's end."""

    __slots__ = ("_message", "_text", "asks_final", "bytes_in", "model", "rows",
                 "stream", "surface", "tensor_bytes_in", "version")  # fmt: skip
    metadata = None

    def __init__(self, message: Message, bytes_in: int, surface: InferSurface) -> None:
        self.surface: Surface = surface
        self.stream = surface == "grpc.stream_infer"
        self.model: str = message.model_name
        self.version: str = message.model_version
        self.bytes_in = bytes_in
        self.tensor_bytes_in = sum(map(len, message.raw_input_contents)) + sum(
            tensor.contents.ByteSize() for tensor in message.inputs if tensor.HasField("contents")
        )
        shape = message.inputs[0].shape if message.inputs else []
        self.rows: int = shape[0] if shape else 1
        asked = ENABLE_FINAL in message.parameters
        self.asks_final = asked and bool(message.parameters[ENABLE_FINAL].bool_param)
        self._message = message
        self._text: GenerateWork | None = None

    def bounds(self, offer: Offer) -> Bounds:
        """As in `Work`: tokens of a text engine, rows of any other model."""
        _check(self._message)
        check_reachable(offer)
        kserve_models.check_version(offer.serving, self.version, self.model)
        serving, message = offer.serving, self._message
        kserve_infer.check_named("output", (each.name for each in message.outputs), serving.outputs)
        if offer.model.adapter in KEYS:
            return self.text.bounds(offer)
        kserve_infer.check_named("input", (each.name for each in message.inputs), serving.inputs)
        return Bounds(0, 0, self.rows)

    @property
    def text(self) -> GenerateWork:
        """The tensors as a body of the generate protocol. Raises `CallerError` 400."""
        if self._text is None:
            document = text_tensors.document(self._message)
            self._text = GenerateWork(
                self.model, self.version, document, self.bytes_in, stream=self.stream
            )
        return self._text

    def text_engine(self, run: Run) -> bool:
        """True if the model that serves is counted in tokens."""
        return run.model.adapter in KEYS

    def written_for(self, run: Run) -> tuple[bytes, list[str]]:
        """The message for the run's target; and outputs that are ours to count, not the caller's.

        On a stream the server is asked to mark the end of the request. A server gives every output
        to a request that names none: where the catalog lists outputs, those are then named.
        """
        message = ModelInferRequest()
        message.CopyFrom(self._message)
        message.model_name = run.target.upstream
        message.model_version = self.version or run.target.version
        if self.stream:
            message.parameters[ENABLE_FINAL].bool_param = True
        scheduling = scheduling_of(run)
        if scheduling:  # Triton insists on these types
            message.parameters["priority"].uint64_param = scheduling["priority"]
            if "timeout" in scheduling:
                message.parameters["timeout"].int64_param = scheduling["timeout"]
        hidden: list[str] = []
        if not message.outputs:
            for name in run.offer.serving.outputs:
                message.outputs.add(name=name)
        if run.model.adapter in KEYS:
            hidden = text_tensors.write(message, self.text, run.offer)
        content: bytes = message.SerializeToString()
        return content, hidden


def parse(content: bytes, surface: InferSurface) -> InferWork:
    """The work in a message. Raises `CallerError` 400 for what is none.

    Whether its tensors are allowed is asked in `bounds`: a model that does not exist is told first,
    as by Triton.
    """
    message = read(ModelInferRequest, content)
    check_version(message.model_version)
    return InferWork(message, len(content), surface)


def _check(message: Message) -> None:
    """Refuse what is not allowed, by its name. Raises `CallerError` 400."""
    inputs, outputs = message.inputs, message.outputs
    most = kserve_infer.TENSORS_MAX
    if not 0 < len(inputs) <= most or len(outputs) > most or len(message.raw_input_contents) > most:
        raise CallerError("invalid_value", f"send 1 to {most} inputs and outputs")
    kserve_infer.allow(message.parameters, REQUEST_PARAMETERS, "request")
    for tensor in inputs:
        kserve_infer.allow(tensor.parameters, INPUT_PARAMETERS, f"input {tensor.name[:80]!r}")
        if any(not 0 <= dimension <= DIMENSION_MAX for dimension in tensor.shape):
            raise CallerError(
                "invalid_value",
                f"the shape of input {tensor.name[:80]!r} has a dimension that cannot be",
            )
    for output in outputs:
        kserve_infer.allow(output.parameters, OUTPUT_PARAMETERS, f"output {output.name[:80]!r}")


def check_version(version: str) -> None:
    """A version is a number, as in the paths of HTTP, or empty. Raises `CallerError` 400."""
    if version and not (
        version.isascii() and version.isdigit() and len(version) <= VERSION_DIGITS_MAX
    ):
        raise CallerError("invalid_value", f"the model version {version[:80]!r} is not a number")


def check_reachable(offer: Offer) -> None:
    """Servers of a model's own must be known by their gRPC addresses. Raises `WorldError` 503."""
    if any(each.servers and not each.grpc_servers for each in offer.serving.targets):
        raise WorldError(
            "grpc_not_configured",
            f"The operator must tell the gRPC addresses of {offer.model.name!r}'s servers; it is"
            " served over HTTP.",
            retry_after_s=None,
        )
