"""What a worker tells of itself: a valid exposition, true to what was asked of it, and bounded."""

import asyncio
from types import SimpleNamespace

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meterplane.gateway.exposition import Family, Histogram, head_of, lines_of
from meterplane.gateway.metrics import MODELS_MAX, Metrics
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
from tests.triton.scripted import scripted


class Told:
    """An exposition, read by Prometheus' own parser: a sample by its name and some labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [each for family in self.families for each in family.samples]
        names = [family.name for family in self.families]
        assert len(set(names)) == len(names), "a family is told in one piece"
        assert all(family.documentation and family.type != "unknown" for family in self.families)

    def sum_of(self, name: str, **labels: str) -> float:
        assert any(each.name.startswith(name) for each in self.samples), f"no {name}"
        return sum(
            each.value
            for each in self.samples
            if each.name == name and labels.items() <= each.labels.items()
        )


def scrape(port: int) -> Told:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Told(answer.text)


@pytest.mark.django_db(transaction=True)
async def test_requests_tokens_and_times_are_told_by_surface_model_and_status(
    start_gateway, onboard, tmp_path
):
    port = free_port()
    name, dead = new_name("told"), new_name("dead")
    async with listening() as server:
        gateway = start_gateway(server.url, GATEWAY_METRICS_PORT=str(port))
        put_on_sale(
            tmp_path,
            model(name, targets=[target("only", server.url)]),
            model(dead, targets=[target("only", gone := nowhere())]),
        )
        headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
        wanted = [
            *[(asking(name), 200)] * 3,
            (asking(name, stream=True), 200),
            (asking(dead), 503),
            (asking("a-model-nobody-sells"), 404),
            (asking(name, surprise=1), 400),
        ]
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            for body, status in wanted:
                assert (await client.post(CHAT, json=body)).status_code == status
            assert (await client.get("/v1/models")).status_code == 200
        refused = await asyncio.to_thread(httpx.get, f"{gateway.url}/v1/models")
        assert refused.status_code == 401
        told = await asyncio.to_thread(scrape, port)

    of_model = {"surface": "openai.chat", "model": name}
    requests = "meterplane_gateway_requests_total"
    assert told.sum_of(requests, status="200", **of_model) == 4
    assert told.sum_of(requests, status="503", model=dead) == 1
    assert told.sum_of(requests, model="") == 4
    assert told.sum_of(requests) == len(wanted) + 2
    assert told.sum_of("meterplane_gateway_request_seconds_count", **of_model) == 4
    assert told.sum_of("meterplane_gateway_upstream_seconds_count", **of_model) == 4
    first = "meterplane_gateway_time_to_first_token_seconds"
    assert told.sum_of(f"{first}_count", **of_model) == 1, "of streams"
    assert told.sum_of(f"{first}_count", model=dead) == 0, "none came"
    assert 0 < told.sum_of(f"{first}_sum", **of_model) < 5
    assert told.sum_of("meterplane_gateway_tokens_per_second_count", **of_model) == 1
    assert told.sum_of("meterplane_gateway_tokens_total", kind="input", **of_model) == 16
    assert told.sum_of("meterplane_gateway_tokens_total", kind="output", **of_model) == 12

    refusals = "meterplane_gateway_refusals_total"
    assert told.sum_of(refusals, surface="openai") == 3
    assert told.sum_of(refusals, code="invalid_api_key") == 1
    admissions = "meterplane_gateway_admissions_total"
    assert told.sum_of(admissions, outcome="admitted") == 5
    assert told.sum_of(admissions, outcome="refused_budget") == 0
    assert told.sum_of("meterplane_gateway_open_reservations") == 0

    healthy = "meterplane_gateway_server_healthy"
    assert told.sum_of(healthy, server=server.url) == 1
    assert told.sum_of(healthy, server=gone) == 0, "its circuit is open"
    assert told.sum_of("meterplane_gateway_server_failures_total", server=gone) >= 1
    assert told.sum_of("meterplane_gateway_server_requests_total", server=server.url) == 4
    assert told.sum_of("meterplane_gateway_server_in_flight", server=server.url) == 0
    assert told.sum_of("meterplane_gateway_journal_healthy") == 1
    assert told.sum_of("meterplane_gateway_journal_frames_total") >= 10
    assert told.sum_of("meterplane_gateway_access_log_lines_dropped_total") == 0
    assert told.sum_of("process_cpu_seconds_total") > 0
    assert "a-model-nobody-sells" not in str(told.samples), "a caller's word is no label"


@pytest.mark.django_db(transaction=True)
async def test_what_is_under_way_is_told_while_it_is(start_gateway, onboard, tmp_path):
    port = free_port()
    name = new_name("held")
    hold, held = asyncio.Event(), asyncio.Event()
    async with listening() as server:
        answer = server.script

        async def script(peer):
            held.set()
            await hold.wait()
            await answer(peer)

        async with scripted(script) as slow:
            gateway = start_gateway(slow.url, GATEWAY_METRICS_PORT=str(port))
            put_on_sale(tmp_path, model(name, targets=[target("only", slow.url)]))
            headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
                asked = asyncio.create_task(client.post(CHAT, json=asking(name)))
                await held.wait()
                told = await asyncio.to_thread(scrape, port)
                hold.set()
                assert (await asked).status_code == 200
            assert told.sum_of("meterplane_gateway_server_in_flight", server=slow.url) == 1
    assert told.sum_of("meterplane_gateway_open_reservations") == 1
    assert told.sum_of("meterplane_gateway_requests_in_flight") == 1
    assert told.sum_of("meterplane_gateway_connections") == 1, "the operator's is not a caller's"

    def sealed():
        return scrape(port).sum_of("meterplane_gateway_journal_unsealed_bytes") == 0

    await asyncio.to_thread(wait_until, sealed, "the journal sealed")
    told = await asyncio.to_thread(scrape, port)
    assert told.sum_of("meterplane_gateway_journal_unsynced_seconds") == 0
    assert told.sum_of("meterplane_gateway_open_reservations") == 0


@pytest.mark.django_db(transaction=True)
async def test_refusals_of_admission_are_told_by_reason(start_gateway, onboard, tmp_path):
    port = free_port()
    name = new_name("dear")
    async with listening() as server:
        gateway = start_gateway(server.url, GATEWAY_METRICS_PORT=str(port))
        put_on_sale(tmp_path, model(name, targets=[target("only", server.url)]))
        poor = let_in(onboard, monthly_budget_nano=645_000)
        headers = {"Authorization": f"Bearer {poor.secret}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            statuses = [
                (await client.post(CHAT, json=asking(name))).status_code for _ in range(280)
            ]
        told = await asyncio.to_thread(scrape, port)
    admitted, refused = statuses.count(200), statuses.count(402)
    assert admitted > 0 < refused, statuses
    assert admitted + refused == len(statuses)
    admissions = "meterplane_gateway_admissions_total"
    assert told.sum_of(admissions, outcome="admitted") == admitted
    assert told.sum_of(admissions, outcome="refused_budget") == refused
    assert told.sum_of("meterplane_gateway_refusals_total", surface="openai") == refused


def a_run(surface: str = "openai.chat", name: str = "tiny-lm", *, stream: bool = True):
    settled = SimpleNamespace(compute_us=120_000, tokens_in=40, tokens_out=12)
    return SimpleNamespace(
        work=SimpleNamespace(surface=surface, stream=stream),
        model=SimpleNamespace(name=name),
        settled=settled,
        first_byte_s=0.02,
    )


async def test_more_models_than_labels_are_counted_together():
    metrics = Metrics()
    for number in range(MODELS_MAX + 50):
        metrics.admitted(a_run(name=f"model-{number}"), 200, 0.1)
    told = Told((await metrics.text()).decode())
    requests = "meterplane_gateway_requests_total"
    assert told.sum_of(requests) == MODELS_MAX + 50
    assert told.sum_of(requests, model="other") == 50
    assert len({each.labels["model"] for each in told.samples if "model" in each.labels}) == (
        MODELS_MAX + 1
    )


async def test_requests_go_on_while_a_long_text_is_made():
    metrics = Metrics()
    for number in range(MODELS_MAX):
        metrics.admitted(a_run(name=f"model-{number}"), 200, 0.1)
    making, turns = asyncio.create_task(metrics.text()), 0
    while not making.done():
        turns += 1
        await asyncio.sleep(0)
    text = await making
    assert len(text) > 2_000_000
    assert len(text) / turns < 20_000, "bytes that are made while requests wait"


def test_a_label_cannot_end_its_line():
    family = Family("a_name", "gauge", "What it is.")
    odd = 'a "quoted" \\ text\nand another 1'
    family.add(7, label=odd)
    text = head_of(family) + lines_of(family, family.samples)
    (read,) = text_string_to_metric_families(text)
    (sample,) = read.samples
    assert (sample.labels, sample.value) == ({"label": odd}, 7)
    assert text.count("\n") == 3


def test_a_histogram_counts_each_value_once_under_every_bound_it_is_within():
    histogram = Histogram((0.5, 1, 2.5))
    for value in (0.1, 0.5, 0.6, 1.0, 2.6):
        histogram.observe(value)
    family = Family("a_name", "histogram", "What it is.", [({"of": "x"}, histogram)])
    (read,) = text_string_to_metric_families(head_of(family) + lines_of(family, family.samples))
    buckets = {each.labels["le"]: each.value for each in read.samples if "le" in each.labels}
    assert buckets == {"0.5": 2, "1": 4, "2.5": 4, "+Inf": 5}
    others = {each.name: each.value for each in read.samples if "le" not in each.labels}
    assert others == {"a_name_count": 5, "a_name_sum": pytest.approx(4.8)}
