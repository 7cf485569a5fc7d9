"""How many requests to Triton an event is, and when Triton counts it: asked of a real one."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx2 as httpx
import pytest
from django.db import connection

from meterplane.catalog.queries import catalog_entries
from meterplane.metering.models import UsageEvent
from meterplane.metering.reconcile import served
from meterplane.metering.reconcile.counted import counted_around
from meterplane.metering.reconcile.scrape import scrape
from meterplane.triton.metrics import fetch_counters
from tenants.scoping import system_scope
from tests.conftest import wait_until
from tests.gateway.conftest import *  # noqa: F403  its gateways, and what they sell
from tests.metering.through_the_gateway import measured, shipped

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = {"model": "tiny-lm", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
ASKED = (
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"n": 3}),
    ("/v1/completions", {"model": "tiny-lm", "max_tokens": 4, "prompt": ["a", "b", "c"], "n": 2}),
    ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": ["one", "two", "three"]}),
    ("/v2/models/tiny-lm/generate", {"text_input": "x"}),
    ("/v2/models/identity/infer", {"inputs": [
        {"name": "INPUT0", "shape": [8], "datatype": "FP32", "data": [0.0] * 8}]}),
    ("/v2/models/identity/infer", {"inputs": [
        {"name": "NONE", "shape": [1, 4], "datatype": "FP32", "data": [0.0] * 4}]}),
)  # fmt: skip


def bounds_now(server, settings, looks):
    groups = served.groups_on(
        server, {model for model, _ in fetch_counters(server.metrics_url)},
        catalog_entries().values(),
    )  # fmt: skip
    known = served.Known(
        {name: entry.adapter for name, entry in catalog_entries().items()},
        served.names_of([server]),
        served.servers_by_model({server.name: groups}),
    )
    with system_scope("test"):
        return {
            next(iter(group.upstreams)): served.accounted_for(server, group, known, *looks)
            for group in groups
        }


def test_what_triton_counts_is_what_events_account_for(
    triton, start_gateway, acme, settings, monkeypatch
):
    monkeypatch.setattr(served, "SLACK", timedelta(seconds=1))
    server = measured(triton)
    settings.TRITON_METRICS = [server]
    gateway = start_gateway(triton.http_url)
    assert scrape() == 1
    time.sleep(1.2)
    with shipped(gateway.journal), gateway.client(acme.secret) as client:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda each: client.post(each[0], json=each[1]), ASKED * 2))
        with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as whole:
            whole.read()
        with client.stream(
            "POST", "/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 900}
        ) as left:
            next(left.iter_raw())
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 200, 400] * 2
        with system_scope("test"):
            wait_until(lambda: UsageEvent.objects.count() == 16, "all of it taken in")
    time.sleep(1.2)
    assert scrape() == 1
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT at FROM triton_counter ORDER BY at")
        looks = [at for (at,) in cursor.fetchall()]
        cursor.execute(
            "SELECT model, max(success) - min(success) FROM triton_counter GROUP BY model"
        )
        counted = dict(cursor.fetchall())
    bounds = bounds_now(server, settings, looks)
    assert bounds["identity"].low == counted["identity"] == 2
    assert bounds["identity"].high == 4  # a refused one may have been counted
    assert (bounds["all-minilm-l6-v2"].low, counted["all-minilm-l6-v2"]) == (2, 2)
    assert bounds["all-minilm-l6-v2"].high == 2
    # 2 x (1 chat, 1 of three choices, 3 prompts, 1 generate) and a stream; the one that was left
    # is counted or not, as Triton likes.
    assert (bounds["tiny-lm"].low, bounds["tiny-lm"].high) == (13, 14)
    assert 13 <= counted["tiny-lm"] <= 14


def test_a_triton_that_is_away_leaves_nothing(settings, db):
    from meterplane.triton.metrics import MeasuredServer

    settings.TRITON_METRICS = [MeasuredServer(("http://x:1",), "http://127.0.0.1:9/metrics")]
    assert scrape() == 0
    from meterplane.kernel import clock

    with system_scope("test"):
        assert "nobody looked" in counted_around("http://x:1", clock.now()).problem


def test_the_gateways_own_names_are_what_events_carry(triton):
    assert measured(triton).names == (triton.http_url, triton.grpc_url)
    assert httpx.get(triton.metrics_url).status_code == 200
