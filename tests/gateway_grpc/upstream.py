"""A server of the protocol that does as a test tells it. Runs on a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from tritonclient.grpc import service_pb2 as pb

from tests.gateway_grpc.tensors import SERVICE

Infer = Callable[["Upstream", pb.ModelInferRequest, grpc.ServicerContext], pb.ModelInferResponse]
Stream = Callable[
    ["Upstream", pb.ModelInferRequest, grpc.ServicerContext], Iterator[pb.ModelStreamInferResponse]
]


class Upstream(grpc.GenericRpcHandler):
    """`asked` counts requests, `cancelled` those that were given up."""

    def __init__(self, infer: Infer | None, stream: Stream | None) -> None:
        self.address = ""
        self.asked = 0
        self.asked_ready = 0
        self.cancelled = 0
        self.messages: list[pb.ModelInferRequest] = []
        self.server: grpc.Server | None = None
        self._infer = infer
        self._stream = stream

    def service(self, details):
        if details.method == f"{SERVICE}/ModelInfer" and self._infer is not None:
            return grpc.unary_unary_rpc_method_handler(
                lambda asked, context: self._infer(self, self._note(asked, context), context),
                pb.ModelInferRequest.FromString,
                pb.ModelInferResponse.SerializeToString,
            )
        if details.method == f"{SERVICE}/ModelStreamInfer" and self._stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._answer,
                pb.ModelInferRequest.FromString,
                pb.ModelStreamInferResponse.SerializeToString,
            )
        if details.method == f"{SERVICE}/ServerReady":
            return grpc.unary_unary_rpc_method_handler(
                self._ready,
                pb.ServerReadyRequest.FromString,
                pb.ServerReadyResponse.SerializeToString,
            )
        return None

    def _ready(self, asked, context):
        self.asked_ready += 1
        return pb.ServerReadyResponse(ready=True)

    def _answer(self, asked, context):
        for each in asked:
            yield from self._stream(self, self._note(each, context), context)

    def _note(self, asked, context):
        def ended() -> None:
            if context.code() is None and not done.is_set():
                self.cancelled += 1

        done = threading.Event()
        context.done = done
        context.add_callback(ended)
        self.messages.append(asked)
        self.asked += 1
        return asked


@contextmanager
def serving(infer: Infer | None = None, stream: Stream | None = None) -> Iterator[Upstream]:
    """One such server."""
    made = Upstream(infer, stream)
    made.server = grpc.server(ThreadPoolExecutor(16), handlers=(made,))
    made.address = f"127.0.0.1:{made.server.add_insecure_port('127.0.0.1:0')}"
    made.server.start()
    try:
        yield made
    finally:
        made.server.stop(0).wait()


def until_given_up(context: grpc.ServicerContext) -> None:
    """Say nothing until the caller has left."""
    left = threading.Event()
    if context.add_callback(left.set):
        left.wait(30)


def response(final: bool | None, *texts: bytes, **fields: object) -> pb.ModelStreamInferResponse:
    """One response of a stream."""
    made = pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(**fields))
    if final is not None:
        made.infer_response.parameters["triton_final_response"].bool_param = final
    for text in texts:
        made.infer_response.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        made.infer_response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
    return made
