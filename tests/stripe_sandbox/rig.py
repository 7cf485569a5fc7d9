"""What the sandbox's tests stand on: the real process, the real SDK, and a receiver of webhooks."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import stripe

from tests.stripe_schema import recording

# Before any client exists: no id file in the user's home, no platform headers.
stripe.enable_telemetry = False

KEY = "sk_test_meterplane0123456789"
READY_WITHIN_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


class Sandbox:
    """One sandbox process over one data file; can be killed and started again.

    All it is asked and all it says is judged at the end of the test (`tests.stripe_schema`).
    """

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.arguments = arguments
        self.url = ""
        self.log = data.with_suffix(".log")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "Sandbox":
        port = urlsplit(self.url).port or 0  # a restart keeps its address
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                recording.command(
                    self.data,
                    *("--port", str(port), "--webhook-retry-seconds", "0.05"),
                    *self.arguments,
                ),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, f"no address in {said!r}; log: {self.log.read_text()[-2000:]}"
        self.url = found[0]
        self.request("GET", "/healthz")  # the socket listens already: this waits for the app
        return self

    def stop(self, how: int = signal.SIGTERM) -> float:
        """Seconds it took to end."""
        process, self._process = self._process, None
        if process is None:
            return 0.0
        began = time.monotonic()
        os.kill(process.pid, how)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        return time.monotonic() - began

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, key: str = KEY, **options: Any) -> stripe.StripeClient:
        """The real SDK, pointed here for everything it could reach."""
        bases = dict.fromkeys(("api", "files", "connect", "meter_events"), self.url)
        return stripe.StripeClient(
            key,
            base_addresses=bases,  # type: ignore[arg-type]
            http_client=stripe.RequestsClient(timeout=(5, 20)),
            **options,
        )

    def request(
        self,
        method: str,
        path: str,
        form: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = KEY,
    ) -> "Answered":
        """One bare HTTP request."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port or 80, timeout=READY_WITHIN_S
        )
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        body = None
        if form is not None:
            body = urlencode(form)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, body, sent | (headers or {}))
            answer = connection.getresponse()
            text = answer.read().decode()
            return Answered(answer.status, answer.headers, text)
        finally:
            connection.close()

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """The control door; what it answers."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80)
        try:
            connection.request(
                method,
                f"/_sandbox{path}",
                json.dumps(body or {}),
                {"Authorization": f"Bearer {KEY}"},
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, text
        return json.loads(text)


@dataclass(frozen=True)
class Answered:
    """A bare answer."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass
class Receiver:
    """A webhook endpoint that answers from a script, then 200, and keeps what it got."""

    script: list[int] = field(default_factory=list)
    got: list[tuple[bytes, str]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    url: str = ""

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in list(self.got)]

    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for body, _ in list(self.got)]

    def start(self) -> Callable[[], None]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((body, self.headers["Stripe-Signature"]))
                receiver.at.append(time.monotonic())
                self.send_response(receiver.script.pop(0) if receiver.script else 200)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hook?from=stripe"

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return stop


def until(true: Callable[[], Any], what: str, within_s: float = READY_WITHIN_S) -> None:
    """Poll until `true()`; fail naming `what`."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        time.sleep(0.01)


class Books:
    """Short ways to the states that tests start from, always through the SDK."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.client = sandbox.client()

    def customer(self, card: str | None = "pm_card_visa", **fields: Any) -> str:
        """A customer, with a card on file unless told otherwise."""
        params: dict[str, Any] = {"name": "Acme", "email": "bills@acme.example", **fields}
        if card is not None:
            params |= {
                "payment_method": card,
                "invoice_settings": {"default_payment_method": card},
            }
        return self.client.v1.customers.create(params).id  # type: ignore[arg-type]

    def draft(self, customer: str, *amounts: int, **fields: Any) -> str:
        params: dict[str, Any] = {"customer": customer, "currency": "usd", **fields}
        invoice = self.client.v1.invoices.create(params)  # type: ignore[arg-type]
        if amounts:
            lines: Any = [{"amount": amount, "description": "Tokens"} for amount in amounts]
            self.client.v1.invoices.add_lines(invoice.id, {"lines": lines})
        return invoice.id

    def in_status(self, status: str) -> str:
        """An invoice of 12.00 that has come to this status."""
        invoices = self.client.v1.invoices
        invoice = self.draft(self.customer(), 1200)
        if status == "draft":
            return invoice
        invoices.finalize_invoice(invoice)
        if status == "paid":
            invoices.pay(invoice)
        elif status == "void":
            invoices.void_invoice(invoice)
        elif status == "uncollectible":
            invoices.mark_uncollectible(invoice)
        assert invoices.retrieve(invoice).status == status
        return invoice

    def events_about(self, object_id: str) -> list[str]:
        """Types of all events about one object, oldest first."""
        events = self.sandbox.request("GET", "/v1/events?limit=100").json["data"]
        return [e["type"] for e in reversed(events) if e["data"]["object"]["id"] == object_id]
