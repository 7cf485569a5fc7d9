"""A gateway in a thread: verifies passes as the real one does, remembers what it was asked.

`served` plays metering: the first request of an id counts, another one of the same id does not.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from django.conf import settings

from meterplane.contracts import batch_pass
from meterplane.kernel import clock


@dataclass(frozen=True, slots=True)
class Call:
    """One request that arrived with a good pass."""

    path: str
    body: dict[str, Any]
    allowed: batch_pass.BatchPass

    @property
    def text(self) -> str:
        """The one message of a chat line."""
        return str(self.body["messages"][0]["content"])


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` 0 closes the connection without an answer."""

    status: int
    body: dict[str, Any] | bytes
    headers: dict[str, str] = field(default_factory=dict)


def completion(call: Call) -> Reply:
    """Says what it was told, with token counts."""
    words = len(call.text.split())
    return Reply(
        200,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": call.text}}],
            "usage": {"prompt_tokens": words, "completion_tokens": 2, "total_tokens": words + 2},
        },
    )


def refusal(status: int, code: str, message: str, **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    return Reply(status, body, headers)


class GatewayDouble:
    """Give `answer` another function to have it behave otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Callable[[Call], Reply] = completion
        self.calls: list[Call] = []
        self.served: dict[UUID, Call] = {}
        self.at_once = 0
        self.at_once_max = 0
        self.lock = threading.Lock()

    def ask(self, call: Call) -> Reply:
        with self.lock:
            self.calls.append(call)
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            reply = self.answer(call)
        finally:
            with self.lock:
                self.at_once -= 1
        if reply.status == 200:
            with self.lock:
                self.served.setdefault(call.allowed.request_id, call)
        return reply

    def texts_served(self) -> list[str]:
        return [call.text for call in self.served.values()]


@contextmanager
def running(port: int = 0) -> Iterator[GatewayDouble]:
    """A double that listens."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            scheme, _, text = self.headers["Authorization"].partition(" ")
            allowed = None
            if scheme.lower() == "meterplane-batch":
                allowed = batch_pass.verify(text.encode(), settings.API_KEY_PEPPER, clock.now_ms())
            if allowed is None:
                reply = refusal(401, "invalid_api_key", "no pass")
            else:
                reply = double.ask(Call(self.path, json.loads(raw), allowed))
            if reply.status == 0:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, text in reply.headers.items():
                    self.send_header(name.replace("_", "-"), text)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # a worker that was killed does not listen

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # a caller that is gone

    server = Server(("127.0.0.1", port), Handler)
    double = GatewayDouble(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
