"""Events are sent as they stand in their file, in batches, and again after any failure.

What answers here keeps what it took as the product does: by id, for good; and fails when it is
told to. The product's own endpoint is asked in `test_reads.py`.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from meterplane.cli import events
from meterplane.cli.main import app
from tests.conftest import free_port


class Endpoint(ThreadingHTTPServer):
    """What was taken, by id; the sizes of batches; and the answers that fail, first ones first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), Handler)
        self.taken: dict[str, str] = {}
        self.sizes: list[int] = []
        self.failures: list[int] = []
        self.bodies: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/api/v1/events"
        assert self.headers["Content-Type"] == "application/cloudevents-batch+json"
        sent = json.loads(body)
        self.server.sizes.append(len(sent))
        self.server.bodies.append(body)
        status = self.server.failures.pop(0) if self.server.failures else 200
        if status == 503:  # the worst of cases: taken, and the answer lost
            [self.take(event) for event in sent]
        results = [self.take(event) | {"index": n} for n, event in enumerate(sent)]
        answer = {"results": results} if status == 200 else {"detail": "Not with this key."}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def take(self, event: dict[str, object]) -> dict[str, object]:
        name, content = str(event.get("id")), json.dumps(event)
        if "type" not in event:
            return {"id": name, "status": "invalid", "problem": {"detail": "type is missing."}}
        if name not in self.server.taken:
            self.server.taken[name] = content
            return {"id": name, "status": "accepted"}
        same = self.server.taken[name] == content
        return {"id": name, "status": "duplicate" if same else "conflict", "problem": None}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def send(endpoint, monkeypatch, tmp_path):
    """Write a file and send it."""
    monkeypatch.setattr(events, "PAUSES_S", (0.0,) * 4)

    def typed(content: str | bytes):
        file = tmp_path / "events"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        environment = {
            "METERPLANE_CONTROL_URL": f"http://127.0.0.1:{endpoint.server_port}",
            "METERPLANE_ADMIN_KEY": "mp_admin_x",
        }
        told = CliRunner().invoke(app, ["events", "send", str(file)], env=environment)
        assert told.exception is None or isinstance(told.exception, SystemExit), told.output
        return told

    return typed


def line(number: object, **more: object) -> str:
    return json.dumps({"id": str(number), "type": "gpu", "data": {"seconds": 1}} | more)


def test_a_long_file_goes_in_batches_and_again_without_counting_twice(send, endpoint):
    content = "\n".join(map(line, range(2_500)))
    told = send(content)
    assert (told.exit_code, told.stdout) == (0, "Events: 2,500 accepted.\n")
    assert endpoint.sizes == [1_000, 1_000, 500]
    again = send(content)
    assert (again.exit_code, again.stdout) == (0, "Events: 2,500 duplicate.\n")
    assert len(endpoint.taken) == 2_500


@pytest.mark.parametrize(
    "content",
    [
        f"[{line(1)}, {line(2)}]",
        f"\n\n[\n{line(1)},\n{line(2)}\n]\n",
        f"\n{line(1)}\r\n\n{line(2)}\n",
    ],
)
def test_an_array_and_lines_are_the_same(send, endpoint, content):
    assert send(content).exit_code == 0
    assert sorted(endpoint.taken) == ["1", "2"]


def test_one_event_over_several_lines_is_one(send, endpoint):
    assert send(json.dumps(json.loads(line(1)), indent=2)).exit_code == 0
    assert list(endpoint.taken) == ["1"]


def test_numbers_are_sent_digit_for_digit(send, endpoint):
    exact = b'{"id": "1", "type": "gpu", "data": {"hours": 0.1000000000000000055511151231257827}}'
    assert send(exact).exit_code == 0
    assert endpoint.bodies == [b"[" + exact + b"]"]


def test_what_is_not_taken_is_named_by_its_line_and_the_rest_is_taken(send, endpoint):
    content = "\n".join(["", line(1), "{oops", line(2), '{"id": "3"}', line(1, data={})])
    told = send(content)
    assert told.exit_code == 1
    assert "Events: 2 accepted, 1 conflict, 2 invalid." in told.stdout
    places = [row.split()[0] for row in told.stdout.splitlines()[2:]]
    assert places == ["3", "5", "6"]
    assert "type is missing." in told.stdout
    assert sorted(endpoint.taken) == ["1", "2"]


def test_a_passing_failure_is_tried_again(send, endpoint):
    endpoint.failures = [503, 429]
    told = send(line(1))
    assert (told.exit_code, told.stdout) == (0, "Events: 1 duplicate.\n")
    assert endpoint.sizes == [1, 1, 1]


def test_who_may_not_is_told_so_and_where_it_stopped(send, endpoint):
    endpoint.failures = [200, 403]
    told = send("\n".join(map(line, range(1_200))))
    assert told.exit_code == 2
    assert "From event 1001 on nothing was taken: Not with this key." in told.stderr
    assert len(endpoint.sizes) == 2


def test_a_file_of_nothing_is_no_events(send, endpoint):
    assert send("\n").stdout == "Events: none.\n"
    assert endpoint.sizes == []
