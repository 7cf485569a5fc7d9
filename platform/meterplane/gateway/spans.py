"""Spans of requests, exported by OpenTelemetry: the extra `meterplane[otel]`.

A request is a server span; what it had a server do is a client span below it, with the attributes
of the semantic conventions for generative AI: names and counts, never what was said. Everything is
configured by the standard `OTEL_` variables. Spans are asked for by an endpoint
(`OTEL_EXPORTER_OTLP_ENDPOINT` or `..._TRACES_ENDPOINT`); without one nothing of OpenTelemetry is
imported and nothing is done.

A span is handed to the SDK's batches when its request has ended, and leaves from a thread of
theirs: a collector that is slow or away costs spans (`OTEL_BSP_MAX_QUEUE_SIZE` wait, 2,048) and
never a request. The client span's id is decided before it exists: the server behind us is told it.
"""

import asyncio
import contextlib
import importlib.util
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from meterplane.gateway.trace import Trace, read
from meterplane.kernel import clock

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from meterplane.contracts.usage import Settle
    from meterplane.gateway.run import Run

SHUTDOWN_S = 5.0  # for the last batch; a collector that is away must not hold a restart
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_ROUTES = {
    "openai.chat": ("/v1/chat/completions", "chat"),
    "openai.completions": ("/v1/completions", "text_completion"),
    "openai.embeddings": ("/v1/embeddings", "embeddings"),
    "kserve.generate": ("/v2/models/{model}/generate", "text_completion"),
    "kserve.infer": ("/v2/models/{model}/infer", "infer"),
    "grpc.infer": ("inference.GRPCInferenceService/ModelInfer", "infer"),
    "grpc.stream_infer": ("inference.GRPCInferenceService/ModelStreamInfer", "infer"),
}
_PROVIDERS = {"openai": "openai_compatible"}  # whoever it is that speaks its protocol
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def asked_for(env: Mapping[str, str]) -> bool:
    """Does the environment name a collector?"""
    off = (
        env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or env.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )
    return not off and any(env.get(name, "").strip() for name in ENDPOINTS)


def problems(env: Mapping[str, str]) -> list[str]:
    """Why spans that are asked for cannot be exported: one sentence each."""
    if not asked_for(env):
        return []
    name = next(name for name in ENDPOINTS if env.get(name, "").strip())
    found = []
    if not _installed():
        found.append(
            f"{name} asks for spans, but OpenTelemetry is not installed: "
            "pip install 'meterplane[otel]', or unset it"
        )
    protocol = next((env[each].strip() for each in PROTOCOLS if env.get(each, "").strip()), "")
    if protocol not in ("", "http/protobuf"):
        found.append(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; spans leave by http/protobuf alone"
        )
    return found


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


class Told(Protocol):
    """A request of any surface that has ended."""

    request_name: str
    method: str
    status: int
    run: "Run | None"
    trace: "Trace | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpannedTrace(Trace):
    """A trace whose span is ours to end. `span_id` is the client span's, below it."""

    span: "Span"


class Spans:
    """One worker's. `processor` takes the spans; else they are exported by OTLP over HTTP."""

    def __init__(self, processor: "SpanProcessor | None" = None) -> None:
        from opentelemetry import trace as api
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor = BatchSpanProcessor(OTLPSpanExporter())

        class Ids(RandomIdGenerator):
            """The next span's id may be known already."""

            next_span_id = 0

            def generate_span_id(self) -> int:
                span_id, self.next_span_id = self.next_span_id, 0
                return span_id or super().generate_span_id()

        self._api = api
        self._ids = Ids()
        self._provider = TracerProvider(id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("meterplane.gateway")

    def begin(self, headers: dict[bytes, bytes], method: str, surface: str) -> SpannedTrace:
        """Begin a request's span. The server behind us is told the client span to come."""
        api = self._api
        given = read(headers)
        parent = None
        if given is not None and given.parent_id:
            remote = api.SpanContext(
                int(given.trace_id, 16),
                int(given.parent_id, 16),
                is_remote=True,
                trace_flags=api.TraceFlags(int(given.flags, 16)),
                trace_state=api.TraceState.from_header([given.state.decode()]),
            )
            parent = api.set_span_in_context(api.NonRecordingSpan(remote))
        named = method if method in _METHODS else "HTTP"
        span = self._tracer.start_span(
            named,
            parent,
            kind=api.SpanKind.SERVER,
            attributes={"http.request.method": named, "meterplane.surface": surface},
            start_time=clock.now_ns(),
        )
        ours = span.get_span_context()
        return SpannedTrace(
            trace_id=f"{ours.trace_id:032x}",
            span_id=f"{random.getrandbits(64) or 1:016x}",
            parent_id=given.parent_id if given is not None else "",
            flags=f"{ours.trace_flags:02x}",
            state=given.state if given is not None else b"",
            span=span,
        )

    def end(self, told: Told, code: str) -> None:
        """End a request's span, and tell what was asked of a server and what came of it."""
        trace, run = told.trace, told.run
        if not isinstance(trace, SpannedTrace) or not trace.span.is_recording():
            return
        span = trace.span
        if run is not None:
            route, operation = _ROUTES.get(run.work.surface, ("", run.work.surface))
            if route:
                span.update_name(f"{told.method} {route}")
                span.set_attribute("http.route", route)
            if run.settled is not None and run.asked_between[0]:
                self._client_span(trace, run, run.settled, operation)
        if told.status:
            span.set_attribute("http.response.status_code", told.status)
        span.set_attribute("meterplane.request_id", told.request_name)
        if code:
            span.set_attribute("error.type", code)
        if told.status >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(clock.now_ns())

    def _client_span(self, trace: SpannedTrace, run: "Run", settled: "Settle", what: str) -> None:
        api, (asked_at, answered_at) = self._api, run.asked_between
        attributes: dict[str, str | int | float | bool] = {
            "gen_ai.operation.name": what,
            "gen_ai.provider.name": _PROVIDERS.get(run.model.adapter, "triton"),
            "gen_ai.request.model": run.work.model,
            "gen_ai.request.stream": run.work.stream,
            "gen_ai.response.model": run.model.name,
            "gen_ai.response.id": str(run.request_id),
            "gen_ai.usage.input_tokens": settled.tokens_in,
            "gen_ai.usage.output_tokens": settled.tokens_out,
            "http.request.resend_count": run.retries,
        }
        if run.server:
            address = urlsplit(run.server)
            attributes["server.address"] = address.hostname or ""
            if address.port:
                attributes["server.port"] = address.port
        if run.first_byte_s:
            attributes["gen_ai.response.time_to_first_chunk"] = run.first_byte_s
        now_ns, now = clock.now_ns(), time.monotonic()
        self._ids.next_span_id = int(trace.span_id, 16)
        span = self._tracer.start_span(
            f"{what} {run.model.name}",
            api.set_span_in_context(trace.span),
            kind=api.SpanKind.CLIENT,
            attributes=attributes,
            start_time=now_ns - int((now - asked_at) * 1e9),
        )
        self._ids.next_span_id = 0
        if settled.status in ("error", "interrupted"):
            span.set_attribute("error.type", str(settled.http_status))
            span.set_status(api.StatusCode.ERROR)
        span.end(now_ns - int((now - answered_at) * 1e9))

    async def close(self) -> None:
        """Export what waits, for `SHUTDOWN_S` at most."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait for us
                loop.call_soon_threadsafe(gone.set)

        # Not the loop's executor: its end would be waited for without a bound.
        threading.Thread(target=shut_down, name="spans-shutdown", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), SHUTDOWN_S)
