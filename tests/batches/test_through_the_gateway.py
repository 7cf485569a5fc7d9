"""One address for everything: files and batches through a real gateway, lines served by Triton."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx2 as httpx
import openai
import pytest

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts.receipt import charge_explained, verified
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.keys import revoke_key
from tests import environment
from tests.batches.conftest import CHAT, drive, jsonl, request_line, results, stored_files
from tests.conftest import OnboardedOrganisation, TritonServer, free_port
from tests.gateway.conftest import CATALOG, GatewayProcess, end, launch
from tests.metering.segments import message

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="session")
def front_process(triton: TritonServer, web: str) -> Iterator[GatewayProcess]:
    """A gateway that knows where the control plane is."""
    gateway = launch(environment.HOME / "front", triton.http_url, CONTROL_URL=web)
    yield gateway
    end(gateway)


@pytest.fixture
def front(front_process: GatewayProcess, redis_url: str, settings) -> GatewayProcess:
    front_process.frames_before = 0
    front_process.frames_before = len(front_process.frames())
    settings.GATEWAY_INTERNAL_URL = front_process.url
    return front_process


@pytest.fixture
def acme(
    transactional_db: None, redis_url: str, onboard: Callable[..., OnboardedOrganisation]
) -> OnboardedOrganisation:
    """A tenant that may use every sample model, in batches those that have a batch price."""
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    return onboard("acme")


@pytest.fixture
def at_front(front: GatewayProcess, acme: OnboardedOrganisation) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=acme.secret, max_retries=0) as client:
        yield client


def chat_line(custom_id: str, text: str, **body: object) -> dict[str, object]:
    line = request_line(custom_id, text)
    return line | {"body": line["body"] | {"max_tokens": 8} | body}


def test_a_batch_is_served_metered_at_batch_prices_and_told_by_the_same_ids(at_front, front, acme):
    lines = [chat_line(str(number), f"What is meter {number}?") for number in range(40)]
    bad = chat_line("bad", "x", temperature=99)
    file = at_front.files.create(file=("in.jsonl", jsonl(*lines, bad)), purpose="batch")
    batch = at_front.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    drive(acme, batch.id)
    done = at_front.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.request_counts.to_dict() == {"total": 41, "completed": 40, "failed": 1}
    output = results(at_front, done.output_file_id)
    assert [line["custom_id"] for line in output] == [str(number) for number in range(40)]
    [refused] = results(at_front, done.error_file_id)
    assert refused["response"]["status_code"] == 400
    settles = front.settles()
    assert {settle.service_tier for settle in settles} == {"batch"}
    assert {str(settle.request_id) for settle in settles} == {
        line["response"]["request_id"] for line in output
    }
    assert len(settles) == 40
    for settle in settles:  # half of the standard prices
        assert settle.cost_nano * 2 == settle.tokens_in * 150 + settle.tokens_out * 600
    assert sum(settle.tokens_in for settle in settles) == done.usage.input_tokens
    assert sum(settle.tokens_out for settle in settles) == done.usage.output_tokens


def test_a_line_has_its_batchs_tags_unless_it_names_its_own(at_front, front, acme):
    lines = [
        chat_line("inherits", "x"),
        chat_line("names one", "x", metadata={"team": "its own", "run": "7"}),
        chat_line("says null", "x", metadata=None),
        chat_line("says nonsense", "x", metadata={"team": 1}),
    ]
    file = at_front.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    metadata = {"team": "search", "too long for a tag": "v" * 257}
    batch = at_front.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata=metadata
    )
    drive(acme, batch.id)
    done = at_front.batches.retrieve(batch.id)
    assert done.metadata == metadata
    told = {
        line["custom_id"]: line["response"]["request_id"]
        for line in results(at_front, done.output_file_id)
    }
    tags = {str(settle.request_id): settle.tags for settle in front.settles()}
    assert {custom_id: tags[request_id] for custom_id, request_id in told.items()} == {
        "inherits": {"team": "search"},
        "names one": {"team": "its own", "run": "7"},
        "says null": {"team": "search"},
    }
    [refused] = results(at_front, done.error_file_id)
    assert refused["response"]["body"]["error"]["param"].startswith("metadata")


def test_usage_requests_and_receipts_are_read_where_requests_are_sent(front, acme, web):
    ask = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    with front.client(acme.secret) as client:
        sent = client.post(
            "/v1/chat/completions", json=ask, headers={"x-meterplane-tags": "team=search"}
        )
        request_id = sent.headers["x-request-id"]
        early = client.get(f"/v1/receipts/{request_id}")
        assert (early.status_code, early.headers["retry-after"]) == (404, "1")
        ingest_segment(message(front.settles()))
        receipt = client.get(f"/v1/receipts/{request_id}")
        listed = client.get("/v1/requests", params={"tag:team": "search"}).json()
        one = client.get(f"/v1/requests/{request_id}").json()
        usage = client.get("/v1/usage", params={"group_by": "model", "last": "1d"}).json()
        assert client.post("/v1/usage").status_code == 405
        assert client.get("/v1/receipts").status_code == 404
    keys = httpx.get(f"{front.url}/.well-known/jwks.json")  # needs no key
    assert keys.json() == httpx.get(f"{web}/.well-known/jwks.json").json()
    claims = verified(receipt.content, keys.json())
    assert claims["tags"] == {"team": "search"}
    assert claims["charge"]["amount"] == one["cost"] == usage["totals"][0]["cost"]
    assert charge_explained(claims)
    assert [each["id"] for each in listed["data"]] == [request_id]
    with front.client("mp_live_nobody") as client:
        assert client.get("/v1/usage").status_code == 401


def test_a_revoked_key_stops_its_batch_at_the_gateway(at_front, front, acme):
    file = at_front.files.create(
        file=("f", jsonl(*(chat_line(str(n), "hello") for n in range(50)))), purpose="batch"
    )
    batch = at_front.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    revoke_key(tenant_id=acme.id, key_id=acme.key_id)
    ended = drive(acme, batch.id)
    assert (ended.status, ended.completed, ended.failed) == ("completed", 0, 50)
    assert front.settles() == []
    with pytest.raises(openai.AuthenticationError):
        at_front.batches.retrieve(batch.id)


def test_a_large_file_passes_the_door_in_both_directions(at_front, acme):
    content = jsonl(*(request_line(str(number), "x" * 1000) for number in range(20_000)))
    made = at_front.files.create(file=("large.jsonl", content), purpose="batch")
    assert made.bytes == len(content)
    assert at_front.files.content(made.id).read() == content
    assert [file.id for file in at_front.files.list(limit=1)] == [made.id]
    assert at_front.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        at_front.files.retrieve(made.id)
    assert missing.value.code == "file_not_found"


def test_a_chunked_upload_passes_the_door(front, acme):
    body = [
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n',
        *[b"y" * 10_000] * 200,
        b"\r\n--x--\r\n",
    ]
    with front.client(acme.secret) as client:
        answer = client.post(
            "/v1/files",
            content=iter(body),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
    assert answer.status_code == 200
    assert answer.json()["bytes"] == 2_000_000


def test_only_listed_headers_come_back_under_the_gateways_request_id(front, acme):
    with front.client(acme.secret) as client:
        answer = client.get("/v1/batches", headers={"x-request-id": str(uuid7())})
        wrong = client.delete("/v1/batches")
    assert answer.headers.keys() == {
        "content-type", "content-length", "x-request-id", "cache-control",
    }  # fmt: skip
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")


def test_a_bad_key_goes_no_further_than_the_gateway(triton, acme, tmp_path):
    """The control plane's address leads nowhere, and it does not matter."""
    gateway = launch(
        tmp_path / "front",
        triton.http_url,
        CONTROL_URL=f"http://127.0.0.1:{free_port()}",
    )
    try:
        for secret in ("nothing", "mp_live_" + "0" * 49):
            with gateway.client(secret) as client:
                assert client.get("/v1/files").status_code == 401
        with gateway.client(acme.secret) as client:
            away = client.get("/v1/files")
        assert (away.status_code, away.json()["error"]["code"]) == (503, "control_unavailable")
        assert away.headers["retry-after"]
    finally:
        end(gateway)


def test_a_gateway_without_a_control_plane_says_so(triton, acme, tmp_path):
    gateway = launch(tmp_path / "front", triton.http_url, CONTROL_URL="")
    try:
        with gateway.client(acme.secret) as client:
            answer = client.post("/v1/batches", json={})
        assert answer.status_code == 501
        assert "CONTROL_URL" in answer.json()["error"]["message"]
    finally:
        end(gateway)


def test_an_upload_over_the_bound_is_refused_while_it_arrives(front, acme):
    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x" * 1024 * 1024

    with front.client(acme.secret) as client:
        try:
            answer = client.post(
                "/v1/files",
                content=endless(),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
        except (httpx.WriteError, httpx.ReadError):
            pass  # the connection was closed while we were still talking
        else:
            assert answer.status_code == 413
    declared = http.client.HTTPConnection(front.url.removeprefix("http://"))
    declared.request(
        "POST",
        "/v1/files",
        headers={"Authorization": f"Bearer {acme.secret}", "Content-Length": "999999999"},
    )
    assert declared.getresponse().status == 413
    declared.close()
    assert stored_files() == []


def test_a_caller_that_leaves_in_the_middle_leaves_nothing_behind(front, acme, at_front):
    host, port = front.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {acme.secret}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(head.encode() + b"--x\r\n" + b"y" * 50_000)
        time.sleep(0.2)
    assert list(at_front.files.list()) == []
    assert stored_files() == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    ],
)
def test_a_broken_answer_of_the_control_plane_is_a_503(triton, acme, tmp_path, answer):
    with scripted(answer) as url:
        gateway = launch(tmp_path / "front", triton.http_url, CONTROL_URL=url)
        try:
            with gateway.client(acme.secret) as client:
                told = client.get("/v1/files")
            assert (told.status_code, told.json()["error"]["code"]) == (503, "control_unavailable")
        finally:
            end(gateway)


class scripted:  # noqa: N801  used as a context manager only
    """A server that reads a little and answers these bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        caller, _ = self._listener.accept()
        with caller:
            caller.recv(65_536)
            caller.sendall(self._answer)

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()
