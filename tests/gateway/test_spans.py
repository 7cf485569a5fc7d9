"""Spans of a request and of what a server did for it: exported off the loop, if asked for."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from meterplane.gateway import spans
from meterplane.gateway.config import ConfigInvalid, from_environment
from tests.conftest import free_port, wait_until
from tests.gateway.deployments import (
    CHAT,
    asking,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    target,
)
from tests.gateway.listening import listening
from tests.gateway.test_config import GOOD
from tests.gateway.test_trace import PARENT, SENT, SPAN_ID, TRACE_ID


@contextmanager
def collector() -> Iterator[Any]:
    """An OTLP collector over HTTP: `spans` it received, `headers` and `paths` of its requests."""
    found = SimpleNamespace(spans=[], headers=[], paths=[], resources=[], url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.headers.append(dict(self.headers))
            found.paths.append(self.path)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found.resources.append(told(resource.resource.attributes))
                for scope in resource.scope_spans:
                    found.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def told(attributes: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in attributes
    }


@pytest.mark.django_db(transaction=True)
async def test_a_request_and_its_upstream_call_arrive_at_the_collector(
    start_gateway, onboard, tmp_path
):
    name, dead = new_name("spanned"), new_name("dead")
    with collector() as collected:
        async with listening() as server:
            gateway = start_gateway(
                server.url,
                OTEL_EXPORTER_OTLP_ENDPOINT=collected.url,
                OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=a-collectors-secret",
                OTEL_SERVICE_NAME="the-gateway",
                OTEL_BSP_SCHEDULE_DELAY="100",
            )
            put_on_sale(
                tmp_path,
                model(name, targets=[target("only", server.url)]),
                model(dead, targets=[target("only", nowhere())]),
            )
            headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
                given = {"traceparent": PARENT}
                stream = asking(name, stream=True)
                assert (await client.post(CHAT, json=stream, headers=given)).status_code == 200
                assert (await client.post(CHAT, json=asking(dead))).status_code == 503
                unsampled = {"traceparent": PARENT[:-2] + "00"}
                answer = await client.post(CHAT, json=asking(name), headers=unsampled)
                assert answer.status_code == 200
                assert (await client.get("/healthz")).status_code == 200
            await asyncio.to_thread(wait_until, lambda: len(collected.spans) >= 4, "the spans")
            gateway.process.terminate()
            await asyncio.to_thread(gateway.process.wait, 30)
    assert len(collected.spans) == 4, "none of health checks, none of what is not sampled"
    by_name = {span.name: span for span in collected.spans if span.trace_id.hex() == TRACE_ID}
    incoming, outgoing = by_name[f"POST {CHAT}"], by_name[f"chat {name}"]
    assert (incoming.kind, outgoing.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert incoming.parent_span_id.hex() == SPAN_ID
    assert outgoing.parent_span_id == incoming.span_id
    assert incoming.start_time_unix_nano <= outgoing.start_time_unix_nano
    assert outgoing.end_time_unix_nano <= incoming.end_time_unix_nano
    assert outgoing.start_time_unix_nano < outgoing.end_time_unix_nano
    heard = [SENT.search(each) for each in server.heard]
    sent = [each[1].decode().split("-") for each in heard if each]
    assert sent[0][1:3] == [TRACE_ID, outgoing.span_id.hex()], "the server's parent is its call"
    assert int(sent[1][3], 16) & 1 == 0, "who began the trace decided not to sample it"
    attributes = told(outgoing.attributes)
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == name
    assert attributes["gen_ai.usage.input_tokens"] == 4
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert f"http://{attributes['server.address']}:{attributes['server.port']}" == server.url
    assert told(incoming.attributes)["http.response.status_code"] == 200
    failed = [span for span in collected.spans if span.trace_id.hex() != TRACE_ID]
    assert {span.status.code for span in failed} == {2}, "both of the dead model's are errors"
    assert collected.paths[0] == "/v1/traces"
    assert collected.headers[0]["x-collector-key"] == "a-collectors-secret"
    assert collected.resources[0]["service.name"] == "the-gateway"
    assert headers["Authorization"].split()[1] not in str(collected.spans)
    assert "a-collectors-secret" not in gateway.log.read_text()


@pytest.mark.django_db(transaction=True)
def test_a_collector_that_is_away_costs_no_request_and_no_restart(start_gateway, acme, triton):
    gateway = start_gateway(
        triton.http_url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    body = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    with gateway.client(acme.secret) as client:
        for _ in range(20):
            assert client.post(CHAT, json=body).status_code == 200
    gateway.process.terminate()
    assert gateway.process.wait(spans.SHUTDOWN_S + 5) == 0
    assert len(gateway.settles()) == 20


def memory() -> tuple[spans.Spans, InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    return spans.Spans(SimpleSpanProcessor(kept)), kept


def ended(trace: Any, status: int, method: str = "GET") -> Any:
    return SimpleNamespace(trace=trace, run=None, status=status, method=method, request_name="r")


def test_a_request_no_model_answered_is_one_span_that_says_why():
    made, kept = memory()
    trace = made.begin({}, "GET", "openai")
    made.end(ended(trace, 401), "invalid_api_key")
    (span,) = kept.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("GET", SpanKind.SERVER, None)
    assert span.attributes["error.type"] == "invalid_api_key"
    assert span.status.status_code is StatusCode.UNSET, "it is the caller's fault, not ours"
    assert f"{span.context.trace_id:032x}" == trace.trace_id


def test_what_a_caller_sends_names_no_span():
    made, kept = memory()
    made.end(ended(made.begin({}, "BREW", "openai"), 405, "BREW"), "method_not_allowed")
    (span,) = kept.get_finished_spans()
    assert span.name == "HTTP"
    assert "BREW" not in str(span.attributes)


def test_a_malformed_parent_begins_a_trace():
    made, kept = memory()
    trace = made.begin({b"traceparent": b"00-x", b"tracestate": b"a=1"}, "GET", "openai")
    made.end(ended(trace, 200), "")
    (span,) = kept.get_finished_spans()
    assert span.parent is None
    assert b"tracestate" not in trace.headers()


def test_a_sampler_of_the_environment_decides(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    made, kept = memory()
    trace = made.begin({}, "GET", "openai")
    made.end(ended(trace, 200), "")
    assert kept.get_finished_spans() == ()
    assert int(trace.flags, 16) & 1 == 0


IMPORTED = """
import sys
import meterplane.gateway.server
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_nothing_is_imported_where_spans_are_not_asked_for():
    subprocess.run([sys.executable, "-c", IMPORTED], check=True)


# As if the extra were not there: the same program, with its packages hidden from it.
HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import meterplane.gateway.__main__ as program
sys.exit(program.main())
"""


def test_spans_that_cannot_be_exported_are_said_at_the_start():
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    ended = subprocess.run(
        [sys.executable, "-c", HIDDEN],
        env=os.environ | GOOD | asked,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "gateway: OTEL_EXPORTER_OTLP_ENDPOINT asks for spans, but OpenTelemetry is not installed: "
        "pip install 'meterplane[otel]', or unset it\n"
    )


def test_a_protocol_that_is_not_spoken_is_said():
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(ConfigInvalid, match="http/protobuf"):
        from_environment(GOOD | asked)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_an_endpoint_is_what_asks_for_spans(given: dict[str, str], wanted: bool):
    assert from_environment(GOOD | given).spans is wanted
