"""The whole loop on real servers: request, meter, price, invoice, payment, standing.

One stack for all of it, in this order, each test going on where the one before left it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import httpx2 as httpx
import numpy
import openai
import pytest
import tritonclient.http as triton_http

from meterplane.stack import processes
from meterplane.stack.screen import curl_line
from tests.conftest import wait_until
from tests.scenarios.conftest import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

RESPONSES = 1_000
SENDERS = 16
VISIBLE_WITHIN_S = 5.0  # the promise; a busy machine may be slower than the product


@pytest.fixture(autouse=True)
def _healthy(stack: RunningStack) -> None:
    """Each test begins with every component up, whatever the one before it killed."""
    wait_until(lambda: ready(stack), "every component ready")


def ready(stack: RunningStack) -> bool:
    found = stack.record.components
    return all(each.state in {"ready", "done"} and not each.detail for each in found)


# -- a request is measured and visible


def visible_event(stack: RunningStack, request_id: str) -> tuple[str, int, int, int, str]:
    """The usage event of a request: model, tokens in and out, cost, status.

    It has to be in the portal too, as soon as it is in usage.
    """
    began = time.monotonic()
    wait_until(lambda: stack.events([request_id]) == 1, "the request in usage")
    [row] = stack.rows(
        "SELECT model, tokens_in, tokens_out, cost_nano, status FROM usage_event"
        " WHERE request_id = %s",
        request_id,
    )
    with signed_in(stack) as portal:
        page = portal.get(f"/requests/{request_id}/")
    assert page.status_code == 200
    print(f"visible after {time.monotonic() - began:.2f} s; promised within {VISIBLE_WITHIN_S}")
    text = " ".join(re.sub(r"<[^>]+>", "", page.text).split())
    _, tokens_in, tokens_out, cost_nano, _ = row
    assert f"{tokens_in:,} in · {tokens_out:,} out" in text
    shown = re.search(r"Cost ?\$([0-9.]+)", text)
    assert shown is not None
    assert Decimal(shown[1]) == Decimal(cost_nano).scaleb(-9)
    return row


def test_the_printed_curl_line_answers_with_384_numbers(stack: RunningStack, tmp_path: Path):
    headers = tmp_path / "headers"
    answer = subprocess.run(
        f"{curl_line(stack.file)} -s -D {headers}",
        shell=True,
        capture_output=True,
        check=True,
    )
    content = json.loads(answer.stdout)
    embedding = content["data"][0]["embedding"]
    assert len(embedding) == 384
    assert abs(sum(number * number for number in embedding) - 1) < 0.01
    fields = dict(line.split(": ", 1) for line in headers.read_text().splitlines() if ": " in line)
    model, tokens_in, _, cost_nano, status = visible_event(stack, fields["x-request-id"])
    assert (model, status) == ("all-minilm-l6-v2", "ok")
    assert tokens_in == content["usage"]["prompt_tokens"]
    assert cost_nano == tokens_in * 20  # USD 0.02 for a million tokens


def test_the_openai_sdk_streams_a_chat(stack: RunningStack):
    client = openai.OpenAI(base_url=f"{stack.file.gateway}/v1", api_key=stack.file.api_key)
    with client.chat.completions.with_streaming_response.create(
        model="tiny-lm",
        messages=[{"role": "user", "content": "What is a meter?"}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    ) as response:
        request_id = response.headers["x-request-id"]
        chunks = list(response.parse())
    client.close()
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    reported = chunks[-1].usage
    assert text.strip()
    assert len(chunks) > 4
    assert reported is not None
    model, tokens_in, tokens_out, cost_nano, status = visible_event(stack, request_id)
    assert (model, status) == ("tiny-lm", "ok")
    assert (tokens_in, tokens_out) == (reported.prompt_tokens, reported.completion_tokens)
    assert cost_nano == tokens_in * 150 + tokens_out * 600


def test_the_triton_client_calls_identity(stack: RunningStack):
    client = triton_http.InferenceServerClient(stack.file.gateway.removeprefix("http://"))
    values = numpy.arange(8, dtype=numpy.float32)
    tensor = triton_http.InferInput("INPUT0", [8], "FP32")
    tensor.set_data_from_numpy(values)
    before = {row[0] for row in stack.rows("SELECT request_id FROM usage_event")}
    result = client.infer(
        "identity", [tensor], headers={"Authorization": f"Bearer {stack.file.api_key}"}
    )
    client.close()
    assert numpy.array_equal(result.as_numpy("OUTPUT0"), values)

    def new() -> list[str]:
        found = stack.rows("SELECT request_id FROM usage_event WHERE model = 'identity'")
        return [str(row[0]) for row in found if row[0] not in before]

    wait_until(lambda: len(new()) == 1, "the request in usage")
    model, _, _, cost_nano, status = visible_event(stack, new()[0])
    assert (model, status, cost_nano) == ("identity", "ok", 10_000)


def meterplane(stack: RunningStack, *words: str) -> str:
    """What the command says, typed by who was given the printed address and key."""
    told = subprocess.run(
        [str(Path(sys.executable).parent / "meterplane"), *words],
        env=stack.env
        | {"METERPLANE_URL": stack.file.gateway, "METERPLANE_API_KEY": stack.file.api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_who_asked_reads_what_it_cost_and_holds_a_receipt(stack: RunningStack, tmp_path: Path):
    ask = {"model": "all-minilm-l6-v2", "input": "What is a receipt?"}
    with stack.client() as client:
        answer = client.post(
            "/v1/embeddings", json=ask, headers={"x-meterplane-tags": "team=scenario"}
        )
    request_id = answer.headers["x-request-id"]
    file = tmp_path / "receipt.json"
    meterplane(stack, "receipt", "get", request_id, "-o", str(file))  # waits until it is there
    assert meterplane(stack, "receipt", "verify", str(file)).startswith("VALID")
    [(cost_nano, tags)] = stack.rows(
        "SELECT cost_nano, tags FROM usage_event WHERE request_id = %s", request_id
    )
    assert tags == {"team": "scenario"}
    receipt = json.loads(file.read_text())
    assert receipt["charge"]["amount_nano"] == str(cost_nano)
    told = json.loads(meterplane(stack, "usage", "--tag", "team=scenario", "--json"))
    assert [(row["events"], row["cost"]) for row in told["totals"]] == [
        (1, receipt["charge"]["amount"])
    ]
    assert request_id in meterplane(stack, "requests", "list", "--tag", "team=scenario")


# -- the money


def hand_calculated_minor(stack: RunningStack, tenant: str, start: object, end: object) -> int:
    """What a customer with a list of requests, a price list and a pencil would find.

    Per model and meter: quantity times unit price, rounded once to the cent.
    """
    prices = {
        (model, meter): Decimal(pico).scaleb(-12)
        for model, meter, pico in stack.rows(
            "SELECT model, meter, unit_price_pico FROM price JOIN price_book_version v"
            " ON v.id = version_id WHERE v.status = 'published'"
        )
    }
    cents = Decimal(0)
    for model, tokens_in, tokens_out, requests in stack.rows(
        "SELECT model, sum(tokens_in), sum(tokens_out), sum(requests) FROM usage_event"
        " WHERE tenant_id = %s AND event_at >= %s AND event_at < %s GROUP BY model",
        tenant,
        start,
        end,
    ):
        for meter, quantity in (
            ("input_tokens", tokens_in),
            ("output_tokens", tokens_out),
            ("requests", requests),
        ):
            amount = Decimal(quantity) * prices[model, meter] * 100
            cents += amount.quantize(Decimal(1), rounding=ROUND_HALF_UP)
    return int(cents)


def test_a_closed_period_is_invoiced_paid_and_shown_so(stack: RunningStack):
    [(tenant,)] = stack.rows("SELECT id FROM organisation WHERE slug = 'demo'")
    closed = stack.manage("close-period", "--org", "demo", "--now")
    assert closed.returncode == 0, closed.stdout + closed.stderr
    [(invoice, start, end, total_minor)] = stack.rows(
        "SELECT id, period_start, period_end, total_minor FROM invoice"
        " WHERE tenant_id = %s ORDER BY period_end DESC LIMIT 1",
        tenant,
    )
    assert total_minor > 0
    assert total_minor == hand_calculated_minor(stack, tenant, start, end)
    [(lines_minor,)] = stack.rows(
        "SELECT sum(amount_minor) FROM invoice_line WHERE invoice_id = %s", invoice
    )
    assert lines_minor == total_minor

    def status() -> str:
        return str(stack.rows("SELECT status FROM invoice WHERE id = %s", invoice)[0][0])

    wait_until(lambda: status() == "paid", "the invoice paid")
    [(number, hosted_url)] = stack.rows(
        "SELECT number, hosted_url FROM invoice WHERE id = %s", invoice
    )
    assert httpx.get(hosted_url).status_code == 200
    with signed_in(stack) as portal:
        page = portal.get("/billing/").text
    row = page[page.index(number) :]
    assert f"{total_minor // 100}.{total_minor % 100:02}" in row
    assert "paid" in row[: row.index("</tr>")].lower()


def test_last_month_was_invoiced_and_paid_before_anybody_looked(stack: RunningStack):
    paid = stack.rows(
        "SELECT total_minor FROM invoice i JOIN organisation o ON o.id = i.tenant_id"
        " WHERE o.slug = 'demo' AND i.status = 'paid' ORDER BY period_end"
    )
    assert len(paid) >= 2
    assert paid[0][0] >= 50  # above what Stripe would carry over to the next invoice


def test_the_demo_has_a_past_in_the_portal(stack: RunningStack):
    [(events, days, models)] = stack.rows(
        "SELECT count(*), count(DISTINCT event_day), count(DISTINCT model) FROM usage_event"
    )
    assert events > 10_000
    assert days >= 30
    assert models == 3
    with signed_in(stack) as portal:
        page = portal.get("/usage/")
    assert page.status_code == 200
    for model in ("tiny-lm", "all-minilm-l6-v2"):
        assert model in page.text


@contextmanager
def signed_in(stack: RunningStack) -> Iterator[httpx.Client]:
    """The portal, as the demo's owner."""
    owner = stack.file.logins["owner"]
    with httpx.Client(base_url=stack.file.web, follow_redirects=True, timeout=30) as client:
        form = client.get("/accounts/login/")
        assert form.status_code == 200
        answer = client.post(
            "/accounts/login/",
            data={
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
                "login": owner.email,
                "password": owner.password,
            },
            headers={"Referer": f"{stack.file.web}/accounts/login/"},
        )
        assert answer.status_code == 200
        assert "sessionid" in client.cookies
        yield client


# -- nothing is lost, nothing is doubled


class Senders:
    """Many clients at once, counting the requests that were answered, on the client's side."""

    def __init__(self, stack: RunningStack, wanted: int) -> None:
        self.answered: list[str] = []
        self.enough = threading.Event()
        self._stack = stack
        self._wanted = wanted
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        body = {
            "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]
        }
        with self._stack.client() as client:
            while not self.enough.is_set():
                try:
                    answer = client.post("/v2/models/identity/infer", json=body)
                except httpx.TransportError:
                    time.sleep(0.05)  # it was killed; what had not been answered does not count
                    continue
                if answer.status_code == 200:
                    self.answered.append(answer.headers["x-request-id"])
                    if len(self.answered) >= self._wanted:
                        self.enough.set()
                else:
                    time.sleep(0.2)


def kill(stack: RunningStack, name: str) -> None:
    """`kill -9`, as the machine would."""
    process = stack.record.component(name).process
    assert process is not None
    assert processes.send(process, signal.SIGKILL)


def back(stack: RunningStack, name: str, before: int) -> bool:
    now = stack.record.component(name)
    return now.state == "ready" and now.restarts > before


def assert_counted_once(stack: RunningStack, answered: list[str]) -> None:
    assert len(set(answered)) == len(answered)
    wait_until(
        lambda: stack.events(answered) == len(answered),
        f"{len(answered)} answered requests in usage",
    )
    [(hours, events)] = stack.rows(
        "SELECT (SELECT sum(events) FROM usage_hour), (SELECT count(*) FROM usage_event)"
    )
    assert hours == events
    [(hour_nano, event_nano)] = stack.rows(
        "SELECT (SELECT sum(cost_nano) FROM usage_hour), (SELECT sum(cost_nano) FROM usage_event)"
    )
    assert hour_nano == event_nano


def test_killing_the_gateway_after_1000_responses_loses_none(stack: RunningStack):
    before = stack.record.component("gateway").restarts
    with Senders(stack, RESPONSES) as senders:
        assert senders.enough.wait(180), f"only {len(senders.answered)} answers"
        kill(stack, "gateway")
    assert len(senders.answered) >= RESPONSES
    wait_until(lambda: back(stack, "gateway", before), "the gateway back")
    assert stack.file.pids["gateway"] == stack.record.component("gateway").process.pid  # type: ignore[union-attr]
    assert_counted_once(stack, senders.answered)
    with stack.client() as client:
        assert client.get("/v1/models").status_code == 200


def test_killing_the_worker_while_it_ingests_doubles_nothing(stack: RunningStack):
    before = stack.record.component("worker").restarts
    with Senders(stack, RESPONSES) as senders:
        wait_until(lambda: len(senders.answered) > RESPONSES // 3, "some load")
        kill(stack, "worker")
        assert senders.enough.wait(180)
    wait_until(lambda: back(stack, "worker", before), "the worker back")
    assert_counted_once(stack, senders.answered)


def test_a_stopped_triton_is_a_503_and_comes_back_by_itself(stack: RunningStack):
    before = stack.record.component("triton").restarts
    kill(stack, "triton")
    with stack.client() as client:
        embeddings = {"model": "all-minilm-l6-v2", "input": "hello"}
        openai_shape = client.post("/v1/embeddings", json=embeddings)
        kserve_shape = client.post(
            "/v2/models/identity/infer",
            json={"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [1]}]},
        )
        assert openai_shape.status_code == kserve_shape.status_code == 503
        assert set(openai_shape.json()["error"]) == {"message", "type", "param", "code"}
        assert isinstance(kserve_shape.json()["error"], str)
        wait_until(lambda: back(stack, "triton", before), "Triton back")
        wait_until(
            lambda: client.post("/v1/embeddings", json=embeddings).status_code == 200,
            "an embedding",
        )


# -- the commands


def test_a_second_up_says_where_it_is_and_starts_nothing(stack: RunningStack):
    before = stack.file.pids
    again = stack.up()
    assert again.returncode == 0
    assert "runs already" in again.stdout
    assert stack.file.web in again.stdout
    assert stack.file.pids == before


def test_status_and_doctor_find_everything_well(stack: RunningStack):
    status = stack.manage("status")
    assert status.returncode == 0, status.stdout
    assert stack.file.gateway in status.stdout
    doctor = stack.manage("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "nothing is broken" in doctor.stdout


def test_data_survives_down_and_up_and_down_leaves_nothing_running(stack: RunningStack):
    key, before = stack.file.api_key, stack.record
    [(events,)] = stack.rows("SELECT count(*) FROM usage_event")
    started = [each.process for each in before.components if each.process]
    assert stack.manage("down").returncode == 0
    assert not [each for each in (*started, before.supervisor) if processes.is_alive(each)]
    assert not stack.layout.stack.exists()
    assert stack.manage("status").returncode == 3
    again = stack.up()
    assert again.returncode == 0, again.stdout
    assert stack.file.api_key == key
    assert stack.rows("SELECT count(*) FROM usage_event") == [(events,)]
    with stack.client() as client:
        answer = client.post("/v1/embeddings", json={"model": "all-minilm-l6-v2", "input": "hi"})
    assert answer.status_code == 200


def test_children_of_a_killed_supervisor_do_not_live_on(stack: RunningStack):
    found = stack.record
    started = [each.process for each in found.components if each.process]
    os.kill(found.supervisor.pid, signal.SIGKILL)
    stack.manage("down")
    assert not [each for each in started if processes.is_alive(each)]
